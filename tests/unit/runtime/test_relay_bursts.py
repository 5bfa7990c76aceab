"""Rows that are handed over together go out as bursts, and each row has an outcome of its own."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import aio_pika
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from tests.counting import counted_tasks, counted_writes
from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import add_to_outbox, rows_left
from tests.servers import Server
from tests.unit.runtime.relays import LEASE, Hold, connection_lost, no_queue_bound, relay_of, running, until_empty
from toolkit import Settings
from toolkit.observability import metrics
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.testing import ManualClock
from toolkit.transport.rabbitmq.publisher import RabbitPublisher


def loans(count: int, clock: ManualClock, *, first: int = 0) -> list[OutboxRow]:
    return [outbox_row(f"loan-{number}", due_at=clock.now() + LEASE) for number in range(first, first + count)]


def count_of(counter: metrics.Counter) -> float:
    return counter.labels("library")._value.get()


async def confirmed(_: object) -> None:
    """Confirm the message."""


async def test_rows_handed_over_together_are_one_burst(
    sqlite: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay, rows = relay_of(sqlite, publisher, clock, window=500), loans(50, clock)
    await add_to_outbox(sqlite, *rows)
    before = count_of(metrics.confirms)

    with counted_tasks() as begun:
        relay.hand_over(rows, [])
        await asyncio.gather(*relay._sending)

    assert publisher.bursts == [50]
    assert begun == ["Relay._send"]
    assert count_of(metrics.confirms) - before == 50
    await relay.drain()
    assert await rows_left(sqlite) == []


async def test_many_rows_are_parted_into_bursts(
    sqlite: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay, rows = relay_of(sqlite, publisher, clock, window=500), loans(250, clock)
    await add_to_outbox(sqlite, *rows)

    relay.hand_over(rows, [])
    await relay.drain()

    assert publisher.bursts == [100, 100, 50]
    assert publisher.taken == [row.message for row in rows]


async def test_each_row_of_a_burst_has_its_outcome(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay, rows = relay_of(database, publisher, clock), loans(5, clock)
    publisher.will(confirmed, no_queue_bound, connection_lost, no_queue_bound, confirmed)
    rows[3] = outbox_row("loan-3", due_at=clock.now() + LEASE, optional=True)
    await add_to_outbox(database, *rows)
    before = [count_of(each) for each in (metrics.confirms, metrics.returns, metrics.failures)]

    with capture_logs() as lines:
        relay.hand_over(rows, [])
        await relay.drain()

    after = [count_of(each) for each in (metrics.confirms, metrics.returns, metrics.failures)]
    async with database.reading() as connection:
        left = (await connection.execute(text("SELECT saga_id, tries FROM saga_outbox ORDER BY saga_id"))).all()
    assert left == [("loan-1", 1), ("loan-2", 0)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [3, 1, 1]
    assert {(each["event"], each["saga_id"]) for each in lines if "saga_id" in each} == {
        ("no queue is bound to the event", "loan-1"),
        ("publish failed", "loan-2"),
    }


async def test_the_open_rows_of_a_burst_go_out_again(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay, rows = relay_of(database, publisher, clock), loans(4, clock)
    publisher.will(confirmed, no_queue_bound, connection_lost, confirmed)
    await add_to_outbox(database, *rows)

    async with running(relay):
        relay.hand_over(rows, [])
        await asyncio.gather(*relay._sending)
        clock.advance(LEASE)
        await until_empty(database)

    assert publisher.saga_ids()[:4] == [f"loan-{number}" for number in range(4)]
    assert sorted(publisher.saga_ids()[4:]) == ["loan-1", "loan-2"]


async def test_a_publisher_that_raises_confirms_no_row(database: Database, clock: ManualClock) -> None:
    class Broken(RecordingPublisher):
        async def publish_many(self, messages: object) -> list[Exception | None]:
            raise asyncio.CancelledError

    relay, rows = relay_of(database, Broken(), clock), loans(3, clock)
    await add_to_outbox(database, *rows)

    relay.hand_over(rows, [])
    await relay.drain()

    assert len(await rows_left(database)) == 3
    assert relay.due_if_handed_over() == clock.now() + LEASE


async def test_a_burst_holds_its_room_until_confirmed(
    sqlite: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay, broker = relay_of(sqlite, publisher, clock, window=4), Hold()
    publisher.will(confirmed, broker, confirmed, confirmed)
    rows = loans(4, clock)
    await add_to_outbox(sqlite, *rows)

    relay.hand_over(rows, [])
    await asyncio.sleep(0.01)
    while_full = relay.due_if_handed_over()
    broker.confirm.set()
    await relay.drain()

    assert while_full == clock.now()
    assert relay.due_if_handed_over() == clock.now() + LEASE


@pytest.mark.parametrize("count", [1, 60])
async def test_rows_handed_over_are_one_write(
    sqlite: Database, clock: ManualClock, rabbitmq: Server, prefix: str, count: int
) -> None:
    rows = loans(count, clock)
    await add_to_outbox(sqlite, *rows)
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, relay_lease=timedelta(seconds=30))
    async with RabbitPublisher(settings) as publisher, await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(prefix, routing_key="#")
        relay = relay_of(sqlite, publisher, clock, window=500)

        with counted_writes(rabbitmq.url) as writes, counted_tasks() as begun:
            relay.hand_over(rows, [])
            await asyncio.gather(*relay._sending)

        await relay.drain()
        passed = (await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count
        await channel.exchange_delete(prefix)
    assert len(writes) == 1
    assert begun == ["Relay._send"]
    assert passed == count
    assert await rows_left(sqlite) == []
