"""A batch costs the same few round trips to PostgreSQL, whatever its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from tests.eventually import becomes_true
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import rows_left
from tests.round_trips import RoundTrips, counted
from tests.unit.runtime.copies import Counter, open_copies_branch, wanted
from toolkit.declaration.events import SagaEnded
from toolkit.persistence.database import Database

#: BEGIN, the rows of the steps, the toolkit's own rows, COMMIT.
OF_A_STEP = 4
#: One statement, which is a transaction of its own.
OF_AN_END = 1


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
