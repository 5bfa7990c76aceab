"""The relay loses nothing: a row goes only after its confirm, and comes due again whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from tests.commit_order import race
from tests.eventually import eventually
from tests.example_sagas.library_branch import Post
from tests.example_sagas.loan_messages import outgoing
from tests.example_sagas.loan_rows import cut_off_everybody_else, put_out, rename, rows_left
from tests.example_sagas.loans import NOON
from toolkit.clock import SystemClock
from toolkit.errors import UnroutableError
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.runtime.relay import Relay
from toolkit.testing import ManualClock

LEASE = timedelta(seconds=5)


class Hold:
    """A broker that does not confirm until the test lets it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.confirm = asyncio.Event()

    async def __call__(self, _: WireMessage) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.confirm.wait()
        self.waiting -= 1


async def nobody_is_bound(_: WireMessage) -> None:
    raise UnroutableError("no queue is bound")


async def connection_lost(_: WireMessage) -> None:
    raise ConnectionError("the broker is away")


async def dying_connection(_: WireMessage) -> None:
    raise asyncio.CancelledError


@pytest.fixture
def watch() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def post() -> Post:
    return Post()


def relay_of(database: Database, post: Post, watch: ManualClock, *, window: int = 10, poll: float = 0.02) -> Relay:
    return Relay(
        database, post, service="library", clock=watch, window=window, lease=LEASE, poll=timedelta(seconds=poll)
    )


@asynccontextmanager
async def running(*relays: Relay) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_taken(post: Post, count: int) -> None:
    async def look() -> bool:
        return len(post.taken) >= count

    await eventually(look, what=f"{count} messages")


async def until_empty(database: Database) -> None:
    async def look() -> bool:
        return not await rows_left(database)

    await eventually(look, what="an empty outbox")


async def tries_of(database: Database, row_id: str) -> int | None:
    async with database.reading() as connection:
        return await connection.scalar(text("SELECT tries FROM outbox WHERE id = :id"), {"id": row_id})


async def a_few_polls() -> None:
    """Give a relay that polls every 20 ms the time to do what it must not do."""
    await asyncio.sleep(0.15)


async def test_a_row_is_deleted_only_after_the_confirm(database: Database, post: Post, watch: ManualClock) -> None:
    broker = Hold()
    post.will(broker)
    await put_out(database, outgoing("loan-1", due_at=watch.now()))

    async with running(relay_of(database, post, watch)):
        await until_taken(post, 1)
        await a_few_polls()
        before = await rows_left(database)
        broker.confirm.set()
        await until_empty(database)

    assert before == ["loan-1"]
    assert post.saga_ids() == ["loan-1"]


async def test_a_message_goes_out_as_it_was_committed(database: Database, post: Post, watch: ManualClock) -> None:
    row = outgoing("loan-1", due_at=watch.now(), destination="saga.library")
    await put_out(database, row)

    async with running(relay_of(database, post, watch)):
        await until_empty(database)

    assert post.taken == [row.message]
    assert post.destinations == ["saga.library"]


@pytest.mark.parametrize("failure", [connection_lost, dying_connection])
async def test_a_failed_publish_repeats_after_its_lease(
    database: Database, post: Post, watch: ManualClock, failure
) -> None:
    post.will(failure)
    await put_out(database, outgoing("loan-1", due_at=watch.now()))

    async with running(relay_of(database, post, watch)):
        await until_taken(post, 1)
        await a_few_polls()
        before_the_lease_ends = post.saga_ids()
        watch.advance(timedelta(seconds=5))
        await until_empty(database)

    assert before_the_lease_ends == ["loan-1"]
    assert post.saga_ids() == ["loan-1", "loan-1"]


async def test_a_relay_stopped_while_publishing_keeps_the_row(
    database: Database, post: Post, watch: ManualClock
) -> None:
    broker = Hold()
    post.will(broker)
    await put_out(database, outgoing("loan-1", due_at=watch.now()))
    async with running(relay_of(database, post, watch)):
        await until_taken(post, 1)

    publishing = [task for task in asyncio.all_tasks() if "Relay._send" in repr(task)]
    for task in publishing:
        task.cancel()
    ended = await asyncio.gather(*publishing, return_exceptions=True)

    assert [type(each) for each in ended] == [asyncio.CancelledError]
    assert await rows_left(database) == ["loan-1"]


async def test_an_unroutable_event_is_kept_and_retried(database: Database, post: Post, watch: ManualClock) -> None:
    post.will(nobody_is_bound, nobody_is_bound, nobody_is_bound)
    row = outgoing("loan-1", due_at=watch.now())
    await put_out(database, row)

    waits = []
    async with running(relay_of(database, post, watch)):
        for tries, wait in ((1, 1), (2, 2), (3, 4)):

            async def is_counted(tries: int = tries) -> bool:
                return await tries_of(database, row.id) == tries

            await eventually(is_counted, what=f"try {tries}")
            watch.advance(timedelta(seconds=wait - 0.1))
            await a_few_polls()
            waits.append(len(post.taken))
            watch.advance(timedelta(seconds=0.1))
        await until_empty(database)

    assert waits == [1, 2, 3]
    assert len(post.taken) == 4


async def test_an_optional_event_may_go_unheard(database: Database, post: Post, watch: ManualClock) -> None:
    post.will(nobody_is_bound)
    await put_out(database, outgoing("loan-1", due_at=watch.now(), optional=True))

    async with running(relay_of(database, post, watch)):
        await until_empty(database)

    assert len(post.taken) == 1


async def test_two_relays_publish_each_row_once(database: Database, watch: ManualClock) -> None:
    loans = sorted(f"loan-{number}" for number in range(100))
    await put_out(database, *(outgoing(loan, due_at=watch.now()) for loan in loans))
    posts = [Post(), Post()]

    async with running(*(relay_of(database, post, watch, window=7) for post in posts)):
        await until_empty(database)

    assert sorted(posts[0].saga_ids() + posts[1].saga_ids()) == loans


async def test_the_rows_of_a_dead_relay_come_due(database: Database, watch: ManualClock) -> None:
    dead, heir = Post(), Post()
    dead.will(Hold())
    await put_out(database, outgoing("loan-1", due_at=watch.now()))
    async with running(relay_of(database, dead, watch)):
        await until_taken(dead, 1)

    async with running(relay_of(database, heir, watch)):
        await a_few_polls()
        while_the_lease_holds = heir.saga_ids()
        watch.advance(timedelta(seconds=5))
        await until_empty(database)

    assert while_the_lease_holds == []
    assert heir.saga_ids() == ["loan-1"]


async def test_a_handed_over_row_needs_no_claim(database: Database, post: Post, watch: ManualClock) -> None:
    relay = relay_of(database, post, watch, poll=60)
    async with running(relay):
        row = outgoing("loan-1", due_at=relay.due_if_handed_over())
        await put_out(database, row)

        relay.hand_over([row], [])
        await until_empty(database)

    assert row.due_at == watch.now() + LEASE
    assert post.saga_ids() == ["loan-1"]


@pytest.mark.parametrize(("confirmed", "left"), [(7, 7), (8, 0)])
async def test_a_batch_deletes_confirmed_rows_along(
    database: Database, post: Post, watch: ManualClock, confirmed: int, left: int
) -> None:
    relay = relay_of(database, post, watch)
    rows = [outgoing(f"loan-{number}", due_at=watch.now() + LEASE) for number in range(confirmed)]
    await put_out(database, *rows)
    relay.hand_over(rows, [])
    await until_taken(post, confirmed)
    await asyncio.gather(*relay._in_flight.values())

    with relay.deletion() as delete:
        async with database.transaction() as session:
            await delete(await session.connection())

    assert len(await rows_left(database)) == left


async def test_a_delayed_row_leaves_when_due(database: Database, post: Post, watch: ManualClock) -> None:
    relay = relay_of(database, post, watch)
    later = outgoing("loan-1", due_at=watch.now() + timedelta(seconds=3))
    await put_out(database, later)

    async with running(relay):
        relay.hand_over([], [later])
        watch.advance(timedelta(seconds=2.9))
        await a_few_polls()
        before = post.saga_ids()
        watch.advance(timedelta(seconds=0.1))
        await until_empty(database)

    assert before == []
    assert post.saga_ids() == ["loan-1"]


async def test_a_delayed_row_does_not_wait_for_polls(database: Database, post: Post) -> None:
    clock = SystemClock()
    relay = Relay(database, post, service="library", clock=clock, window=10, lease=LEASE, poll=timedelta(minutes=1))
    async with running(relay):
        later = outgoing("loan-1", due_at=clock.now() + timedelta(milliseconds=200))
        await put_out(database, later)

        relay.hand_over([], [later])
        await until_empty(database)

    assert post.saga_ids() == ["loan-1"]


async def test_a_row_due_at_commit_is_claimed_immediately(database: Database, post: Post, watch: ManualClock) -> None:
    relay = relay_of(database, post, watch, poll=60)
    async with running(relay):
        await a_few_polls()
        row = outgoing("loan-1", due_at=watch.now())
        await put_out(database, row)

        relay.hand_over([row], [])
        await until_empty(database)

    assert post.saga_ids() == ["loan-1"]


async def test_a_due_row_spins_no_full_window(sqlite: Database, post: Post) -> None:
    class CountedClock(ManualClock):
        looks = 0

        def now(self) -> datetime:
            self.looks += 1
            return super().now()

    clock, broker = CountedClock(NOON), Hold()
    post.will(broker)
    await put_out(sqlite, outgoing("loan-1", due_at=clock.now()))
    async with running(relay := relay_of(sqlite, post, clock, window=1, poll=60)):
        await a_few_polls()
        relay.hand_over([], [outgoing("loan-2", due_at=clock.now())])
        before = clock.looks
        await a_few_polls()
        looks = clock.looks - before
        await put_out(sqlite, outgoing("loan-2", due_at=clock.now()))
        broker.confirm.set()
        await until_empty(sqlite)

    assert looks < 10


async def test_a_full_window_delays_the_remaining_rows(database: Database, post: Post, watch: ManualClock) -> None:
    broker = Hold()
    post.will(*[broker] * 10)
    await put_out(database, *(outgoing(f"loan-{number}", due_at=watch.now()) for number in range(10)))
    relay = relay_of(database, post, watch, window=3, poll=60)

    async with running(relay):
        await until_taken(post, 3)
        await a_few_polls()
        while_full, due = len(post.taken), relay.due_if_handed_over()
        broker.confirm.set()
        await until_empty(database)

    assert while_full == 3
    assert due == watch.now()
    assert broker.most == 3
    assert len(set(post.saga_ids())) == len(post.taken) == 10


async def test_an_expired_lease_in_flight_sends_once(database: Database, post: Post, watch: ManualClock) -> None:
    broker = Hold()
    post.will(broker)
    await put_out(database, outgoing("loan-1", due_at=watch.now()))

    async with running(relay_of(database, post, watch)):
        await until_taken(post, 1)
        watch.advance(timedelta(seconds=6))
        await a_few_polls()
        broker.confirm.set()
        await until_empty(database)

    assert len(post.taken) == 1


async def test_one_message_id_is_in_flight_once(database: Database, post: Post, watch: ManualClock) -> None:
    broker = Hold()
    post.will(broker)
    first = outgoing("loan-1", due_at=watch.now())
    nudge = OutboxRow(id="a nudge", message=first.message, due_at=watch.now())
    await put_out(database, first, nudge)

    async with running(relay_of(database, post, watch)):
        await until_taken(post, 1)
        await a_few_polls()
        together = len(post.taken)
        broker.confirm.set()
        await eventually(lambda: _left(database, 1))
        watch.advance(timedelta(seconds=5))
        await until_empty(database)

    assert together == 1
    assert len(post.taken) == 2


async def _left(database: Database, count: int) -> bool:
    return len(await rows_left(database)) == count


async def test_draining_waits_for_confirms_and_deletes(database: Database, post: Post, watch: ManualClock) -> None:
    relay, broker = relay_of(database, post, watch), Hold()
    post.will(broker, broker)
    rows = [outgoing(f"loan-{number}", due_at=relay.due_if_handed_over()) for number in (1, 2)]
    await put_out(database, *rows)
    relay.hand_over(rows, [])
    draining = asyncio.create_task(relay.drain())
    await until_taken(post, 2)

    waited = not draining.done()
    broker.confirm.set()
    await draining

    assert waited
    assert await rows_left(database) == []


async def test_draining_an_idle_relay_is_done_at_once(database: Database, post: Post, watch: ManualClock) -> None:
    await relay_of(database, post, watch).drain()

    assert post.taken == []


async def test_a_failed_delete_is_repeated_alone(database: Database, post: Post, watch: ManualClock) -> None:
    broker = Hold()
    post.will(broker)
    await put_out(database, outgoing("loan-1", due_at=watch.now()))
    relay = relay_of(database, post, watch, poll=60)  # so that the outage is met by the delete and not by a poll

    async with running(relay):
        await until_taken(post, 1)
        await rename(database, "outbox", "hidden")
        broker.confirm.set()
        await eventually(lambda: _is(not relay.is_healthy), what="the outage")
        await rename(database, "hidden", "outbox")
        await until_empty(database)
        await eventually(lambda: _is(relay.is_healthy), what="the recovery")

    assert len(post.taken) == 1


async def _is(claim: bool) -> bool:
    return claim


async def test_an_outage_while_putting_back_leaves_the_lease(
    database: Database, post: Post, watch: ManualClock
) -> None:
    relay = relay_of(database, post, watch, poll=60)
    gone = asyncio.Event()

    async def unroutable_in_an_outage(_: WireMessage) -> None:
        await rename(database, "outbox", "hidden")
        gone.set()
        raise UnroutableError("no queue is bound")

    post.will(unroutable_in_an_outage)
    row = outgoing("loan-1", due_at=relay.due_if_handed_over())
    await put_out(database, row)
    relay.hand_over([row], [])
    await gone.wait()
    await relay.drain()
    was_healthy = relay.is_healthy
    await rename(database, "hidden", "outbox")

    watch.advance(timedelta(seconds=6))
    async with running(relay):
        await until_empty(database)

    assert not was_healthy
    assert len(post.taken) == 2


async def test_the_relay_outlives_its_connections(postgres: Database, post: Post, watch: ManualClock) -> None:
    neighbour = Database(postgres.url)

    async with running(relay_of(postgres, post, watch)):
        for number in range(5):
            await put_out(neighbour, outgoing(f"loan-{number}", due_at=watch.now()))
            await cut_off_everybody_else(neighbour)
        watch.advance(timedelta(seconds=6))
        await until_empty(neighbour)
    await neighbour.close()

    assert set(post.saga_ids()) == {f"loan-{number}" for number in range(5)}


async def test_a_row_committed_late_is_not_skipped(postgres: Database) -> None:
    assert await race(postgres, pairs=300, seed=7, progress=lambda _: None) == []


async def test_a_stopped_relay_ends_between_transactions(database: Database, post: Post, watch: ManualClock) -> None:
    relay = relay_of(database, post, watch, poll=60)
    working = asyncio.create_task(relay.run())
    row = outgoing("loan-1", due_at=relay.due_if_handed_over())
    await put_out(database, row)
    relay.hand_over([row], [])
    await until_taken(post, 1)

    relay.stop()
    await asyncio.wait_for(working, timeout=5)
    await relay.drain()

    assert await rows_left(database) == []


async def test_a_stopped_relay_claims_no_more_rows(database: Database, post: Post, watch: ManualClock) -> None:
    relay = relay_of(database, post, watch)
    await put_out(database, outgoing("loan-1", due_at=watch.now()))

    relay.stop()
    await asyncio.wait_for(relay.run(), timeout=5)

    assert post.taken == []
    assert await rows_left(database) == ["loan-1"]
