"""A batch costs the same few round trips to PostgreSQL, whatever its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.counting import counted_tasks
from tests.eventually import becomes_true
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import rows_left
from tests.round_trips import RoundTrips, counted
from tests.unit.runtime.copies import Counter, open_copies_branch, wanted
from toolkit.declaration.events import SagaEnded
from toolkit.messaging.envelope import Message
from toolkit.persistence.database import Database

#: BEGIN, the rows of the steps, the toolkit's own rows, COMMIT.
OF_A_STEP = 4
#: One statement, which is a transaction of its own.
OF_AN_END = OF_EXPIRED = 1
#: The streams, then BEGIN, the pruning watermark, the toolkit's own rows, COMMIT.
OF_LONG_EXPIRED = 5


@asynccontextmanager
async def branch_behind_a_counter(postgres: Database) -> AsyncIterator[tuple[Branch, RoundTrips]]:
    async with counted(postgres.url) as trips:
        database = Database(trips.url)
        yield await open_copies_branch(database, Counter()), trips
        await database.close()


@pytest.mark.parametrize("size", [1, 50])
async def test_a_batch_of_steps_costs_few_round_trips(postgres: Database, size: int) -> None:
    async with branch_behind_a_counter(postgres) as (branch, trips):
        await branch.take(*wanted(*range(1000, 1000 + size)))  # prepares the statements
        await branch.relay.drain()
        before = trips.count

        await branch.take(*wanted(*range(size)))
        taken = trips.count - before

    assert taken == OF_A_STEP


@pytest.mark.parametrize("size", [1, 50])
async def test_a_batch_makes_only_the_relays_task(postgres: Database, size: int) -> None:
    branch = await open_copies_branch(postgres, Counter())
    await branch.take(*wanted(1000))

    with counted_tasks() as begun:
        await branch.take(*wanted(*range(size)))

    await branch.relay.drain()
    assert begun == ["Relay._send"]


@pytest.mark.parametrize("size", [1, 50])
async def test_the_ends_of_sagas_cost_one_statement(postgres: Database, size: int) -> None:
    async with branch_behind_a_counter(postgres) as (branch, trips):
        loans = [f"loan-{number}" for number in range(size)]
        await branch.take(*wanted(*range(size)))
        await branch.relay.drain()
        ended = SagaEnded(saga_type="loan", completed=loans[1:], failed=loans[:1])
        await branch.take(ended)
        before = trips.count

        await branch.take(ended)
        taken = trips.count - before

    assert taken == OF_AN_END


def expired(*numbers: int, age: timedelta) -> list[Message]:
    """Return requests of this age whose sagas' deadline has passed."""
    long_ago = datetime.now(UTC) - age
    return [message_of(event, at=long_ago, deadline=long_ago) for event in wanted(*numbers)]


@pytest.mark.parametrize("size", [1, 50])
@pytest.mark.parametrize(
    ("age", "trips_of_a_batch"), [(timedelta(hours=1), OF_EXPIRED), (timedelta(days=2), OF_LONG_EXPIRED)]
)
async def test_a_batch_of_expired_events_costs_few_round_trips(
    postgres: Database, size: int, age: timedelta, trips_of_a_batch: int
) -> None:
    async with branch_behind_a_counter(postgres) as (branch, trips):
        await branch.executor.execute(expired(*range(1000, 1000 + size), age=age))
        await branch.relay.drain()
        before = trips.count

        await branch.executor.execute(expired(*range(size), age=age))
        taken = trips.count - before

    assert taken == trips_of_a_batch


async def test_confirmed_rows_are_deleted_by_one_round_trip(postgres: Database) -> None:
    async with branch_behind_a_counter(postgres) as (branch, trips):
        for number in range(2):  # the first prepares the statement
            await branch.take(*wanted(number))
            await asyncio.gather(*branch.relay._sending)
            before = trips.count
            await branch.relay.drain()

    assert trips.count - before == 1
    assert await rows_left(postgres) == []


def has_published(branch: Branch) -> bool:
    return len(branch.publisher.taken) % 20 == 0


async def test_sent_rows_are_deleted_within_the_batchs_statement(postgres: Database) -> None:
    async with branch_behind_a_counter(postgres) as (branch, trips):
        for first in (1000, 2000):  # the second prepares the statement that deletes, too
            await branch.take(*wanted(*range(first, first + 20)))
            await becomes_true(partial(has_published, branch), what="all messages published")
            await asyncio.sleep(0.05)  # their confirms follow
        before = trips.count

        await branch.take(*wanted(*range(20)))
        taken, left = trips.count - before, await rows_left(postgres)
        await branch.relay.drain()

    assert taken == OF_A_STEP
    assert len(left) == 20
