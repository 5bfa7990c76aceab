"""After a failed transaction, only the message that broke it is retried or becomes a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.eventually import becomes_true
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import dead_letters_of, lent, log_of, notes, states
from tests.example_sagas.loans import BookWanted, Clerk, library
from tests.unit.runtime.database_faults import forbid_entries_of_loan_13
from tests.unit.runtime.loan_requests import wanted
from toolkit import Event, Service
from toolkit.persistence.database import Database


async def test_only_a_batchs_bad_message_is_retried(
    running_branch: Branch, clerk: Clerk, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [wanted(1), wanted(2, shelf=77), wanted(3)]

    await asyncio.gather(*(running_branch.batcher.deliver(each) for each in messages))

    assert await lent(database) == ["loan-1", "loan-3"]
    assert await states(database, "loan-2") == []
    assert await notes(database, "loan-2") == ["retrying"]
    assert await notes(database, "loan-1") == await notes(database, "loan-3") == []
    await running_branch.batcher.deliver(messages[1])
    assert await states(database, "loan-2") == ["failed"]
    assert "could not be recorded" not in capsys.readouterr().out  # it is the step's row, not the toolkit's


async def commit_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def commit_the_transaction(session: AsyncSession) -> None:
    await session.get_transaction().commit()


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize("end", [commit_the_connection, commit_the_transaction])
@pytest.mark.parametrize("external", [False, True])
async def test_a_step_that_commits_is_refused_finally(
    database: Database, clerk: Clerk, end: Callable[[AsyncSession], Awaitable[None]], external: bool
) -> None:
    async def write_and_end(event: BookWanted, session: AsyncSession) -> None:
        if event.loan_id == "loan-2":
            await (await session.connection()).execute(text("UPDATE shelves SET books = 0"))
            await end(session)

    branch = Branch(library(clerk, external=external, undoable=False), database, resources={Clerk: clerk})
    clerk.will("lend_book", *[write_and_end] * 20)
    async with branch.open():
        for _ in range(2):
            await asyncio.gather(*(branch.batcher.deliver(wanted(number)) for number in (1, 2, 3)))

    assert await lent(database) == ["loan-1", "loan-3"]
    assert (await states(database, "loan-2"))[-1] == "failed"
    assert "StepError: a step never commits" in (await log_of(database, "loan-2"))[-1].error
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT min(books) FROM shelves")) == 100


async def test_a_deadlock_counts_as_no_failed_attempt(service: Service, postgres: Database, clerk: Clerk) -> None:
    replicas = [Branch(service, postgres, resources={Clerk: clerk}) for _ in range(2)]
    meeting = asyncio.Barrier(2)
    met: set[str] = set()

    async def take_from_its_shelf(event: BookWanted, session: AsyncSession) -> None:
        take = text("UPDATE shelves SET books = books - 1 WHERE shelf = :shelf")
        await (await session.connection()).execute(take, {"shelf": event.shelf})
        if event.loan_id in ("loan-1", "loan-3") and event.loan_id not in met:
            met.add(event.loan_id)
            await meeting.wait()

    clerk.will("lend_book", *[take_from_its_shelf] * 20)
    async with replicas[0].open(), replicas[1].open():
        await asyncio.gather(
            replicas[0].batcher.deliver(wanted(1, shelf=1)),
            replicas[0].batcher.deliver(wanted(2, shelf=2)),
            replicas[1].batcher.deliver(wanted(3, shelf=2)),
            replicas[1].batcher.deliver(wanted(4, shelf=1)),
        )

    assert await lent(postgres) == ["loan-1", "loan-2", "loan-3", "loan-4"]
    assert len(clerk.calls) > 4
    for number in range(1, 5):
        (entry,) = await log_of(postgres, f"loan-{number}")
        assert (entry.to_state, entry.attempt) == ("completed", 1)
    async with postgres.reading() as connection:
        assert (await connection.execute(text("SELECT books FROM shelves"))).scalars().all() == [98, 98]


async def test_a_race_loser_finds_the_step_done(service: Service, postgres: Database, clerk: Clerk) -> None:
    replicas = [Branch(service, postgres, resources={Clerk: clerk}) for _ in range(2)]
    both_run = asyncio.Barrier(2)

    async def together(_: Event, __: AsyncSession) -> None:
        await both_run.wait()

    clerk.will("lend_book", together, together)
    async with replicas[0].open(), replicas[1].open():
        await asyncio.gather(*(replica.batcher.deliver(wanted(1)) for replica in replicas))

    assert await lent(postgres) == ["loan-1"]
    assert [each.to_state for each in await log_of(postgres, "loan-1")] == ["completed"]


@pytest.mark.parametrize("refusable", [True, False])
async def test_a_lost_key_race_costs_no_attempt(postgres: Database, clerk: Clerk, refusable: bool) -> None:
    async with postgres.engine.begin() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX one_book_a_loan ON loans (loan_id)"))
    service = library(clerk, refusable=refusable)
    replicas = [Branch(service, postgres, resources={Clerk: clerk}) for _ in range(2)]
    both_run = asyncio.Barrier(2)

    async def together(_: Event, __: AsyncSession) -> None:
        await both_run.wait()

    clerk.will("lend_book", together, together)
    async with replicas[0].open(), replicas[1].open():
        await asyncio.gather(*(replica.batcher.deliver(wanted(1)) for replica in replicas))

    assert [each.to_state for each in await log_of(postgres, "loan-1")] == ["completed"]
    assert await dead_letters_of(postgres) == []


async def test_an_unrecordable_message_becomes_a_dead_letter(postgres: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk), postgres, resources={Clerk: clerk})
    await forbid_entries_of_loan_13(postgres)

    async with one.open():
        await asyncio.gather(*(one.batcher.deliver(wanted(number)) for number in (12, 13, 14)))

    assert await lent(postgres) == ["loan-12", "loan-14"]
    (kept,) = await dead_letters_of(postgres)
    assert (kept.reason, kept.saga_id, kept.event_type) == ("not recordable", "loan-13", "BookWanted")
    assert one.batcher.is_healthy


async def test_an_unrecordable_call_becomes_a_dead_letter(postgres: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk, external=True), postgres, resources={Clerk: clerk})

    async def forbid(_: Event, __: AsyncSession) -> None:
        await forbid_entries_of_loan_13(postgres)

    clerk.will("lend_book", forbid)
    async with one.open():
        unlucky = asyncio.create_task(one.batcher.deliver(wanted(13)))
        await becomes_true(lambda: not one.batcher.is_healthy, what="the error")
        was_settled = unlucky.done()
        await one.batcher.deliver(wanted(14))
        await unlucky

    assert not was_settled
    assert await states(postgres, "loan-13") == ["executing"]
    assert await states(postgres, "loan-14") == ["executing", "completed"]
    assert [each.saga_id for each in await dead_letters_of(postgres)] == ["loan-13"]
