"""A step that breaks its own connection, or hangs, fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import dead_letters_of, lent, notes, states
from tests.example_sagas.loans import BookWanted, Clerk, library
from tests.unit.persistence.faults import wanted
from toolkit.persistence.database import Database
from toolkit.runtime import external_calls, invocation

#: Harm that a step does to its own connection, directly or through the database.
Harm = Callable[[AsyncSession], Awaitable[None]]


async def execute(session: AsyncSession, *statements: str) -> None:
    for each in statements:
        await (await session.connection()).execute(text(each))


async def end_its_own_backend(session: AsyncSession) -> None:
    await execute(session, "SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1")


async def end_its_own_backend_and_keep_quiet(session: AsyncSession) -> None:
    try:
        await end_its_own_backend(session)
    except Exception:  # noqa: BLE001 -- a step that swallows it
        return


async def take_too_long(session: AsyncSession) -> None:
    await execute(session, "SET LOCAL statement_timeout = 10", "SELECT pg_sleep(5)")


async def be_cancelled(session: AsyncSession) -> None:
    await execute(session, "SELECT pg_cancel_backend(pg_backend_pid())", "SELECT pg_sleep(5)")


async def idle(session: AsyncSession) -> None:
    await execute(session, "SET LOCAL idle_in_transaction_session_timeout = 1")
    await asyncio.sleep(0.1)
    await execute(session, "SELECT 1")


async def close_its_connection(session: AsyncSession) -> None:
    await (await session.connection()).close()


async def close_the_drivers_connection(session: AsyncSession) -> None:
    raw = await (await session.connection()).get_raw_connection()
    assert raw.driver_connection
    await raw.driver_connection.close()


async def invalidate_its_connection(session: AsyncSession) -> None:
    await (await session.connection()).invalidate()


async def hang(_: AsyncSession) -> None:
    await asyncio.Event().wait()


async def interrupt_itself(session: AsyncSession) -> None:
    raw = await (await session.connection()).get_raw_connection()
    assert raw.driver_connection
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    timer = asyncio.get_running_loop().call_later(0.05, raw.driver_connection._conn.interrupt)
    try:
        await execute(session, f"{numbers} INSERT INTO loans (loan_id, shelf) SELECT i, 1 FROM n")  # without end
    finally:
        timer.cancel()


def raise_code(code: str) -> Harm:
    async def harm(session: AsyncSession) -> None:
        await execute(session, f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{code}'; END $$")

    harm.__name__ = f"raise_{code}"
    return harm


#: Connection lost, shutting down, crashed, out of memory, disk full, read-only, broken, deadlock, serialization.
CODES = ("08006", "57P01", "57P02", "53200", "53100", "25006", "58030", "40P01", "40001")
ON_EITHER = (hang, close_its_connection, close_the_drivers_connection, invalidate_its_connection)
ON_POSTGRESQL = (
    *ON_EITHER,
    end_its_own_backend,
    end_its_own_backend_and_keep_quiet,
    take_too_long,
    be_cancelled,
    idle,
    *map(raise_code, CODES),
)
ON_SQLITE = (*ON_EITHER, interrupt_itself)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time that a step may hold its transaction, or make its call."""
    monkeypatch.setattr(invocation, "LONGEST_STEP", 1.5)
    monkeypatch.setattr(external_calls, "_LONGEST_CALL", timedelta(seconds=1.5))


async def fail_loan_2(database: Database, clerk: Clerk, harm: Harm, *, external: bool) -> int:
    """Deliver three loans until the second, which does the harm, has failed; return how often it ran."""

    async def do_harm(event: BookWanted, session: AsyncSession) -> None:
        if event.loan_id == "loan-2":
            await harm(session)

    clerk.will("lend_book", *[do_harm] * 100)
    branch = Branch(library(clerk, external=external, undoable=False), database, resources={Clerk: clerk})
    async with branch.open():
        await asyncio.gather(*(branch.batcher.deliver(wanted(number)) for number in (1, 2, 3)))
        assert await notes(database, "loan-2") == ["retrying"]
        await branch.batcher.deliver(wanted(2))
        await branch.batcher.deliver(wanted(4))
        assert branch.batcher.is_healthy
    return clerk.calls.count(("lend_book", "loan-2"))


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("harm", ON_POSTGRESQL, ids=lambda harm: harm.__name__)
async def test_on_postgresql_a_broken_connection_fails_one_step(
    postgres: Database, clerk: Clerk, harm: Harm, external: bool
) -> None:
    calls = await asyncio.wait_for(fail_loan_2(postgres, clerk, harm, external=external), timeout=30)

    assert await lent(postgres) == ["loan-1", "loan-3", "loan-4"]
    assert (await states(postgres, "loan-2"))[-1] == "failed"
    assert await dead_letters_of(postgres) == []
    assert calls <= 21, "two attempts, each of a bounded number of runs"


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("harm", ON_SQLITE, ids=lambda harm: harm.__name__)
async def test_on_sqlite_a_broken_connection_fails_one_step(
    sqlite: Database, clerk: Clerk, harm: Harm, external: bool
) -> None:
    calls = await asyncio.wait_for(fail_loan_2(sqlite, clerk, harm, external=external), timeout=30)

    assert await lent(sqlite) == ["loan-1", "loan-3", "loan-4"]
    assert (await states(sqlite, "loan-2"))[-1] == "failed"
    assert calls <= 21


@pytest.mark.parametrize("external", [False, True])
async def test_a_hanging_step_runs_once_per_attempt(database: Database, clerk: Clerk, external: bool) -> None:
    calls = await asyncio.wait_for(fail_loan_2(database, clerk, hang, external=external), timeout=30)

    assert calls == 2, "two attempts; its neighbours don't wait for the first one again"
    assert await lent(database) == ["loan-1", "loan-3", "loan-4"]
