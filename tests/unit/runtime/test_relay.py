"""The relay publishes each committed row, and claims a row again after its lease."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.commit_order import race
from tests.eventually import eventually
from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import add_to_outbox, rename, rows_left, terminate_other_connections
from tests.unit.runtime.relays import (
    Hold,
    connection_lost,
    dying_connection,
    no_queue_bound,
    polled,
    relay_of,
    running,
    until_empty,
    until_published,
)
from toolkit.errors import UnroutableError
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.batch_write import BatchWrite, write_batch
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


async def tries_of(database: Database, row_id: str) -> int | None:
    async with database.reading() as connection:
        return await connection.scalar(text("SELECT tries FROM saga_outbox WHERE id = :id"), {"id": row_id})


async def test_a_row_is_deleted_only_after_the_confirm(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    broker = Hold()
    publisher.will(broker)
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))

    relay = relay_of(database, publisher, clock)
    async with running(relay):
        await until_published(publisher, 1)
        with relay.deletion() as claim_confirmed:  # a batch deletes what is confirmed
            async with database.transaction() as session:
                await write_batch(await session.connection(), BatchWrite(sent=list(claim_confirmed())))
        before = await rows_left(database)
        broker.confirm.set()
        await until_empty(database)

    assert before == ["loan-1"]
    assert publisher.saga_ids() == ["loan-1"]


async def test_a_message_goes_out_as_it_was_committed(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    row = outbox_row("loan-1", due_at=clock.now(), destination="saga.library")
    await add_to_outbox(database, row)

    async with running(relay_of(database, publisher, clock)):
        await until_empty(database)

    assert publisher.taken == [row.message]
    assert publisher.destinations == ["saga.library"]


@pytest.mark.parametrize("failure", [connection_lost, dying_connection])
async def test_a_failed_publish_repeats_after_its_lease(
    database: Database, publisher: RecordingPublisher, clock: ManualClock, failure
) -> None:
    publisher.will(failure)
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))

    async with running(relay_of(database, publisher, clock)):
        await until_published(publisher, 1)
        await polled(database)
        before_the_lease_ends = publisher.saga_ids()
        clock.advance(timedelta(seconds=5))
        await until_empty(database)

    assert before_the_lease_ends == ["loan-1"]
    assert publisher.saga_ids() == ["loan-1", "loan-1"]


async def test_a_relay_stopped_while_publishing_keeps_the_row(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    broker = Hold()
    publisher.will(broker)
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))
    async with running(relay_of(database, publisher, clock)):
        await until_published(publisher, 1)

    publishing = [task for task in asyncio.all_tasks() if "Relay._send" in repr(task)]
    for task in publishing:
        task.cancel()
    ended = await asyncio.gather(*publishing, return_exceptions=True)

    assert [type(each) for each in ended] == [asyncio.CancelledError]
    assert await rows_left(database) == ["loan-1"]


async def test_an_unroutable_event_is_kept_and_retried(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    publisher.will(no_queue_bound, no_queue_bound, no_queue_bound)
    row = outbox_row("loan-1", due_at=clock.now())
    await add_to_outbox(database, row)

    waits = []
    async with running(relay_of(database, publisher, clock)):
        for tries, wait in ((1, 1), (2, 2), (3, 4)):

            async def is_counted(tries: int = tries) -> bool:
                return await tries_of(database, row.id) == tries

            await eventually(is_counted, what=f"try {tries}")
            clock.advance(timedelta(seconds=wait - 0.1))
            await polled(database)
            waits.append(len(publisher.taken))
            clock.advance(timedelta(seconds=0.1))
        await until_empty(database)

    assert waits == [1, 2, 3]
    assert len(publisher.taken) == 4


async def test_an_optional_event_may_go_unheard(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    publisher.will(no_queue_bound)
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now(), optional=True))

    async with running(relay_of(database, publisher, clock)):
        await until_empty(database)

    assert len(publisher.taken) == 1


async def test_two_relays_publish_each_row_once(database: Database, clock: ManualClock) -> None:
    loans = sorted(f"loan-{number}" for number in range(100))
    await add_to_outbox(database, *(outbox_row(loan, due_at=clock.now()) for loan in loans))
    publishers = [RecordingPublisher(), RecordingPublisher()]

    async with running(*(relay_of(database, publisher, clock, window=7) for publisher in publishers)):
        await until_empty(database)

    assert sorted(publishers[0].saga_ids() + publishers[1].saga_ids()) == loans


async def test_the_rows_of_a_dead_relay_come_due(database: Database, clock: ManualClock) -> None:
    dead, heir = RecordingPublisher(), RecordingPublisher()
    dead.will(Hold())
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))
    async with running(relay_of(database, dead, clock)):
        await until_published(dead, 1)

    async with running(relay_of(database, heir, clock)):
        await polled(database)
        while_the_lease_holds = heir.saga_ids()
        clock.advance(timedelta(seconds=5))
        await until_empty(database)

    assert while_the_lease_holds == []
    assert heir.saga_ids() == ["loan-1"]


async def test_a_woken_relay_awaits_no_poll(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock, poll=60)
    broker = Hold()
    publisher.will(broker)
    async with running(relay):
        await polled(database, times=1)
        await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))
        before = relay.begun
        relay.wake()
        await until_published(publisher, 1)
        was_busy = relay.is_busy
        broker.confirm.set()
        await until_empty(database)

    assert publisher.saga_ids() == ["loan-1"]
    assert was_busy
    assert relay.begun == before + 2  # a claim, and a burst


async def test_an_outage_while_putting_back_leaves_the_lease(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock, poll=60)
    gone = asyncio.Event()

    async def unroutable_in_an_outage(_: WireMessage) -> None:
        await rename(database, "saga_outbox", "hidden")
        gone.set()
        raise UnroutableError("no queue is bound")

    publisher.will(unroutable_in_an_outage)
    row = outbox_row("loan-1", due_at=relay.due_if_handed_over())
    await add_to_outbox(database, row)
    relay.hand_over([row], [])
    await gone.wait()
    await relay.drain()
    was_healthy = relay.is_healthy
    await rename(database, "hidden", "saga_outbox")

    clock.advance(timedelta(seconds=6))
    async with running(relay):
        await until_empty(database)

    assert not was_healthy
    assert len(publisher.taken) == 2


async def test_the_relay_outlives_its_connections(
    postgres: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    neighbour = Database(postgres.url)

    async with running(relay_of(postgres, publisher, clock)):
        for number in range(5):
            await add_to_outbox(neighbour, outbox_row(f"loan-{number}", due_at=clock.now()))
            await terminate_other_connections(neighbour)
        clock.advance(timedelta(seconds=6))
        await until_empty(neighbour)
    await neighbour.close()

    assert set(publisher.saga_ids()) == {f"loan-{number}" for number in range(5)}


async def test_a_row_committed_late_is_not_skipped(postgres: Database) -> None:
    assert await race(postgres, pairs=300, seed=7, progress=lambda _: None) == []


async def test_a_stopped_relay_ends_between_transactions(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock, poll=60)
    working = asyncio.create_task(relay.run())
    row = outbox_row("loan-1", due_at=relay.due_if_handed_over())
    await add_to_outbox(database, row)
    relay.hand_over([row], [])
    await until_published(publisher, 1)

    relay.stop()
    await asyncio.wait_for(working, timeout=20)
    await relay.drain()

    assert await rows_left(database) == []


async def test_a_stopped_relay_claims_no_more_rows(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock)
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))

    relay.stop()
    await asyncio.wait_for(relay.run(), timeout=20)

    assert publisher.taken == []
    assert await rows_left(database) == ["loan-1"]
