"""The relay publishes handed-over and delayed rows in time, within its window, one message id at once."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.eventually import eventually
from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import add_to_outbox, rows_left
from tests.example_sagas.loans import NOON
from tests.unit.runtime.relays import (
    LEASE,
    Hold,
    a_moment,
    polled,
    relay_of,
    running,
    until_empty,
    until_published,
)
from toolkit.clock import SystemClock
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.runtime.relay import Relay
from toolkit.testing import ManualClock


async def test_a_handed_over_row_needs_no_claim(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock, poll=60)
    async with running(relay):
        row = outbox_row("loan-1", due_at=relay.due_if_handed_over())
        await add_to_outbox(database, row)

        relay.hand_over([row], [])
        await until_empty(database)

    assert row.due_at == clock.now() + LEASE
    assert publisher.saga_ids() == ["loan-1"]


async def test_a_delayed_row_leaves_when_due(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock)
    later = outbox_row("loan-1", due_at=clock.now() + timedelta(seconds=3))
    await add_to_outbox(database, later)

    async with running(relay):
        relay.hand_over([], [later])
        clock.advance(timedelta(seconds=2.9))
        await polled(database)
        before = publisher.saga_ids()
        clock.advance(timedelta(seconds=0.1))
        await until_empty(database)

    assert before == []
    assert publisher.saga_ids() == ["loan-1"]


async def test_a_delayed_row_does_not_wait_for_polls(database: Database, publisher: RecordingPublisher) -> None:
    clock = SystemClock()
    relay = Relay(
        database, publisher, service="library", clock=clock, window=10, lease=LEASE, poll=timedelta(minutes=1)
    )
    async with running(relay):
        later = outbox_row("loan-1", due_at=clock.now() + timedelta(milliseconds=200))
        await add_to_outbox(database, later)

        relay.hand_over([], [later])
        await until_empty(database)

    assert publisher.saga_ids() == ["loan-1"]


async def test_a_row_due_at_commit_is_claimed_immediately(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    relay = relay_of(database, publisher, clock, poll=60)
    async with running(relay):
        await a_moment()
        row = outbox_row("loan-1", due_at=clock.now())
        await add_to_outbox(database, row)

        relay.hand_over([row], [])
        await until_empty(database)

    assert publisher.saga_ids() == ["loan-1"]


async def test_a_due_row_spins_no_full_window(sqlite: Database, publisher: RecordingPublisher) -> None:
    class CountedClock(ManualClock):
        looks = 0

        def now(self) -> datetime:
            self.looks += 1
            return super().now()

    clock, broker = CountedClock(NOON), Hold()
    publisher.will(broker)
    await add_to_outbox(sqlite, outbox_row("loan-1", due_at=NOON))
    async with running(relay := relay_of(sqlite, publisher, clock, window=1, poll=60)):
        await a_moment()
        relay.hand_over([], [outbox_row("loan-2", due_at=NOON)])
        before = clock.looks
        await a_moment()
        looks = clock.looks - before
        await add_to_outbox(sqlite, outbox_row("loan-2", due_at=NOON))
        broker.confirm.set()
        await until_empty(sqlite)

    assert looks < 10


async def test_a_full_window_delays_the_remaining_rows(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    broker = Hold()
    publisher.will(*[broker] * 10)
    await add_to_outbox(database, *(outbox_row(f"loan-{number}", due_at=clock.now()) for number in range(10)))
    relay = relay_of(database, publisher, clock, window=3, poll=60)

    async with running(relay):
        await until_published(publisher, 3)
        await a_moment()
        while_full, due = len(publisher.taken), relay.due_if_handed_over()
        broker.confirm.set()
        await until_empty(database)

    assert while_full == 3
    assert due == clock.now()
    assert broker.most == 3
    assert len(set(publisher.saga_ids())) == len(publisher.taken) == 10


async def test_an_expired_lease_in_flight_sends_once(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    broker = Hold()
    publisher.will(broker)
    await add_to_outbox(database, outbox_row("loan-1", due_at=clock.now()))

    async with running(relay_of(database, publisher, clock)):
        await until_published(publisher, 1)
        clock.advance(timedelta(seconds=6))
        await polled(database)
        broker.confirm.set()
        await until_empty(database)

    assert len(publisher.taken) == 1


async def test_one_message_id_is_in_flight_once(
    database: Database, publisher: RecordingPublisher, clock: ManualClock
) -> None:
    broker = Hold()
    publisher.will(broker)
    first = outbox_row("loan-1", due_at=clock.now())
    nudge = OutboxRow(id="a nudge", message=first.message, due_at=clock.now())
    await add_to_outbox(database, first, nudge)

    async with running(relay_of(database, publisher, clock)):
        await until_published(publisher, 1)
        await polled(database)
        together = len(publisher.taken)
        broker.confirm.set()
        await eventually(lambda: has_rows(database, 1))
        clock.advance(timedelta(seconds=5))
        await until_empty(database)

    assert together == 1
    assert len(publisher.taken) == 2


async def has_rows(database: Database, count: int) -> bool:
    return len(await rows_left(database)) == count
