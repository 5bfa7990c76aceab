"""Confirmed rows are deleted: with the next batch, by the relay itself, or when it drains."""

from __future__ import annotations

import asyncio

import pytest

from tests.driver_statements import recorded
from tests.eventually import becomes_true
from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import add_to_outbox, rename, rows_left
from tests.unit.runtime.relays import (
    LEASE,
    Hold,
    relay_of,
    running,
    until_empty,
    until_published,
)
from toolkit.persistence.batch_write import BatchWrite
from toolkit.persistence.database import Database
from toolkit.runtime import confirmed_rows
from toolkit.testing import ManualClock


async def test_a_batch_deletes_confirmed_rows_along(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock)
    rows = [outbox_row(f"loan-{number}", due_at=clock.now() + LEASE) for number in range(8)]
    await add_to_outbox(database, *rows)
    relay.hand_over(rows, [])
    await asyncio.gather(*relay._sending)

    with relay.deletion() as claim_confirmed:
        async with database.batch() as transaction:
            await transaction.write(BatchWrite(sent=list(claim_confirmed())))

    assert await rows_left(database) == []


async def test_rows_that_batches_delete_need_no_transaction(
    sqlite: Database, publisher: RecordingPublisher, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed_rows, "_LINGER", 1.0)  # far longer than a batch takes on a busy machine
    relay = relay_of(sqlite, publisher, clock, poll=60)

    with recorded(sqlite) as statements:
        async with running(relay):
            for number in range(8):  # a batch deletes the rows before its own, which linger until the next batch
                with relay.deletion() as claim_confirmed:
                    async with sqlite.batch() as transaction:
                        await transaction.write(BatchWrite(sent=list(claim_confirmed())))
                row = outbox_row(f"loan-{number}", due_at=clock.now() + LEASE)
                await add_to_outbox(sqlite, row)
                relay.hand_over([row], [])
                await asyncio.sleep(0.2)
            by_batches = [each for each, _ in statements if each.startswith("DELETE")]
            await until_empty(sqlite)

    assert len(by_batches) == 7  # each batch but the first deleted one row
    assert len([each for each, _ in statements if each.startswith("DELETE")]) == 8


async def test_draining_waits_for_confirms_and_deletes(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay, broker = relay_of(database, publisher, clock), Hold()
    publisher.will(broker, broker)
    rows = [outbox_row(f"loan-{number}", due_at=relay.due_if_handed_over()) for number in (1, 2)]
    await add_to_outbox(database, *rows)
    relay.hand_over(rows, [])
    draining = asyncio.create_task(relay.drain())
    await until_published(publisher, 2)

    waited = not draining.done()
    broker.confirm.set()
    await draining

    assert waited
    assert await rows_left(database) == []


async def test_draining_an_idle_relay_is_done_at_once(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    await relay_of(database, publisher, clock).drain()

    assert publisher.taken == []


async def test_a_failed_delete_is_repeated_alone(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    broker = Hold()
    publisher.will(broker)
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))
    relay = relay_of(database, publisher, clock, poll=60)  # so that the delete meets the outage, and no poll does

    async with running(relay):
        await until_published(publisher, 1)
        await rename(database, "saga_outbox", "hidden")
        broker.confirm.set()
        await becomes_true(lambda: not relay.is_healthy, what="the outage")
        await rename(database, "hidden", "saga_outbox")
        await until_empty(database)
        await becomes_true(lambda: relay.is_healthy, what="the recovery")

    assert len(publisher.taken) == 1
