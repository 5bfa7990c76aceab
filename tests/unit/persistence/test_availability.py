"""What a message does to its own connection fails its attempt; what is wrong with the database is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from tests.eventually import eventually
from tests.example_sagas.loans import (
    NOON,
    BookWanted,
    Branch,
    Clerk,
    Post,
    lent,
    letters,
    library,
    notes,
    rename,
    states,
    wire,
)
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.errors import DatabaseUnavailableError
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import availability
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.runtime import external_calls, invocation
from toolkit.runtime.service_runtime import ServiceRuntime

#: What a step does to its own connection, or has the database do.
Harm = Callable[[AsyncSession], Awaitable[None]]


def wanted(number: int) -> WireMessage:
    return wire(BookWanted(loan_id=f"loan-{number}"))


async def _is(claim: bool) -> bool:
    return claim


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
        await execute(session, f"DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '{code}'; END $$")

    harm.__name__ = f"raise_{code}"
    return harm


#: Connection lost, shutting down, crashed, out of memory, disk full, only reading, broken, deadlock, serialization.
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
    """A step may hold its transaction, or make its call, for moments only."""
    monkeypatch.setattr(invocation, "LONGEST_STEP", 1.5)
    monkeypatch.setattr(external_calls, "_LONGEST_CALL", timedelta(seconds=1.5))


async def fail_loan_2(database: Database, clerk: Clerk, harm: Harm, *, external: bool) -> int:
    """Deliver three loans, the second of which does the harm, until it has failed; return how often it was run."""

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
async def test_a_step_that_breaks_its_own_connection_fails_alone_on_postgresql(
    postgres: Database, clerk: Clerk, harm: Harm, external: bool
) -> None:
    calls = await asyncio.wait_for(fail_loan_2(postgres, clerk, harm, external=external), timeout=30)

    assert await lent(postgres) == ["loan-1", "loan-3", "loan-4"]
    assert (await states(postgres, "loan-2"))[-1] == "failed"
    assert await letters(postgres) == []
    assert calls <= 21, "two attempts, each of a bounded number of runs"


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("harm", ON_SQLITE, ids=lambda harm: harm.__name__)
async def test_a_step_that_breaks_its_own_connection_fails_alone_on_sqlite(
    sqlite: Database, clerk: Clerk, harm: Harm, external: bool
) -> None:
    calls = await asyncio.wait_for(fail_loan_2(sqlite, clerk, harm, external=external), timeout=30)

    assert await lent(sqlite) == ["loan-1", "loan-3", "loan-4"]
    assert (await states(sqlite, "loan-2"))[-1] == "failed"
    assert calls <= 21


@pytest.mark.parametrize("external", [False, True])
async def test_a_step_that_hangs_is_waited_for_once_an_attempt(
    database: Database, clerk: Clerk, external: bool
) -> None:
    calls = await asyncio.wait_for(fail_loan_2(database, clerk, hang, external=external), timeout=30)

    assert calls == 2, "two attempts; its neighbours wait no second time for the first"
    assert await lent(database) == ["loan-1", "loan-3", "loan-4"]


#: What is done to the toolkit's tables on either database, what undoes it, and what its cure names.
RENAMED = [
    ("ALTER TABLE saga_log RENAME TO hidden", "ALTER TABLE hidden RENAME TO saga_log", "restore the table"),
    ("ALTER TABLE outbox RENAME TO hidden", "ALTER TABLE hidden RENAME TO outbox", "restore the table"),
    ("ALTER TABLE outbox RENAME COLUMN tries TO t", "ALTER TABLE outbox RENAME COLUMN t TO tries", "add the column"),
    (
        "ALTER TABLE saga_log RENAME COLUMN error TO e",
        "ALTER TABLE saga_log RENAME COLUMN e TO error",
        "add the column",
    ),
]
ON_SERVER = [
    ("REVOKE INSERT ON saga_log FROM {login}", "GRANT INSERT ON saga_log TO {login}", "grant the service's login"),
    ("REVOKE SELECT ON saga_log FROM {login}", "GRANT SELECT ON saga_log TO {login}", "grant the service's login"),
    ("REVOKE INSERT ON outbox FROM {login}", "GRANT INSERT ON outbox TO {login}", "grant the service's login"),
    ("REVOKE DELETE ON outbox FROM {login}", "GRANT DELETE ON outbox TO {login}", "grant the service's login"),
    (
        "REVOKE USAGE ON SEQUENCE saga_log_id_seq FROM {login}",
        "GRANT USAGE ON SEQUENCE saga_log_id_seq TO {login}",
        "USAGE on the sequence",
    ),
    (
        "ALTER TABLE saga_log ADD CONSTRAINT no CHECK (false) NOT VALID",
        "ALTER TABLE saga_log DROP CONSTRAINT no",
        "take the constraint",
    ),
    ("ALTER TABLE outbox ADD COLUMN more INT NOT NULL", "ALTER TABLE outbox DROP COLUMN more", "take the constraint"),
]
IN_FILE = [
    (
        "CREATE TRIGGER no BEFORE INSERT ON saga_log BEGIN SELECT RAISE(ABORT, 'no'); END",
        "DROP TRIGGER no",
        "take the constraint",
    ),
]


@pytest.fixture
async def librarian(postgres: Database) -> AsyncIterator[Database]:
    """The library's database as a login sees it that owns nothing."""
    name = f"librarian_{new_id()[-12:]}"
    grants = [
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
    ]
    await change(postgres, *grants)
    login = make_url(postgres.url).set(username=name, password="secret")
    database = Database(login.render_as_string(hide_password=False))
    yield database
    await database.close()
    await change(postgres, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def change(database: Database, *statements: str) -> None:
    async with database.engine.begin() as connection:
        for each in statements:
            await connection.execute(text(each))


async def see_that_it_is_waited_for(
    database: Database, clerk: Clerk, harm: Callable[[], Awaitable[None]], undo: Callable[[], Awaitable[None]]
) -> list[str]:
    """Deliver thirty loans while something is wrong, and mend it; return the cures that were logged."""
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, batch_size=10)
    await harm()
    with capture_logs() as said:
        async with branch.open():
            deliveries = [asyncio.create_task(branch.batcher.deliver(wanted(number))) for number in range(30)]
            await eventually(lambda: _is(not branch.batcher.is_healthy), what="the fault")
            await eventually(lambda: _is(any("cure" in each for each in said)), what="the cure")
            are_settled = all(each.done() for each in deliveries)
            await undo()
            await asyncio.wait_for(asyncio.gather(*deliveries), timeout=30)
            assert branch.batcher.is_healthy
    assert not are_settled
    assert sorted(await lent(database)) == sorted(f"loan-{number}" for number in range(30))
    assert [await notes(database, f"loan-{number}") for number in range(30)] == [[]] * 30
    assert await letters(database) == []
    return [each["cure"] for each in said if "cure" in each]


@pytest.mark.parametrize(("harm", "undo", "cure"), RENAMED)
async def test_what_is_wrong_with_the_toolkits_tables_is_waited_for_and_said(
    database: Database, clerk: Clerk, harm: str, undo: str, cure: str
) -> None:
    cures = await see_that_it_is_waited_for(
        database, clerk, lambda: change(database, harm), lambda: change(database, undo)
    )

    assert any(cure in each for each in cures)


@pytest.mark.parametrize(("harm", "undo", "cure"), ON_SERVER)
async def test_a_right_or_a_rule_that_is_wrong_on_postgresql_is_waited_for_and_said(
    postgres: Database, librarian: Database, clerk: Clerk, harm: str, undo: str, cure: str
) -> None:
    login = make_url(librarian.url).username
    harm, undo = harm.format(login=login), undo.format(login=login)
    cures = await see_that_it_is_waited_for(
        librarian, clerk, lambda: change(postgres, harm), lambda: change(postgres, undo)
    )

    assert any(cure in each for each in cures)


@pytest.mark.parametrize(("harm", "undo", "cure"), IN_FILE)
async def test_a_right_or_a_rule_that_is_wrong_on_sqlite_is_waited_for_and_said(
    sqlite: Database, clerk: Clerk, harm: str, undo: str, cure: str
) -> None:
    cures = await see_that_it_is_waited_for(sqlite, clerk, lambda: change(sqlite, harm), lambda: change(sqlite, undo))

    assert any(cure in each for each in cures)


async def test_a_long_outage_is_said_and_what_is_held_may_be_given_back(
    database: Database, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "LONG_OUTAGE", 0)
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, batch_size=2)
    await rename(database, "saga_log", "hidden")

    async with branch.open():
        held = [branch.batcher.take(wanted(number)) for number in range(5)]
        await branch.batcher.paused.wait()
        is_taking = branch.batcher.taking.is_set()
        branch.batcher.let_go()
        errors = await asyncio.gather(*held, return_exceptions=True)
        await rename(database, "hidden", "saga_log")
        await branch.batcher.taking.wait()
        await branch.batcher.deliver(wanted(7))

    assert not is_taking
    assert all(isinstance(error, DatabaseUnavailableError) for error in errors)
    assert not branch.batcher.paused.is_set()
    assert await lent(database) == ["loan-7"]


async def test_an_inbox_that_is_told_to_stop_during_an_outage_ends(sqlite: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), sqlite, resources={Clerk: clerk})
    await rename(sqlite, "outbox", "hidden")
    running = asyncio.create_task(branch.batcher.run())
    held = [branch.batcher.take(wanted(number)) for number in range(3)]
    await eventually(lambda: _is(not branch.batcher.is_healthy), what="the outage")

    branch.batcher.stop()
    await asyncio.wait_for(running, timeout=5)

    assert not any(each.done() for each in held)


async def test_a_letter_that_cannot_be_kept_is_tried_again(sqlite: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), sqlite, resources={Clerk: clerk})
    await change(
        sqlite,
        "CREATE TRIGGER no BEFORE INSERT ON saga_log WHEN NEW.saga_id = 'loan-2' BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    await rename(sqlite, "dead_letters", "hidden")

    with capture_logs() as said:
        async with branch.open():
            unlucky = branch.batcher.take(wanted(2))
            await branch.batcher.deliver(wanted(1))
            await eventually(lambda: _is("dead letter could not be kept" in {each["event"] for each in said}))
            was_settled = unlucky.done()
            await rename(sqlite, "hidden", "dead_letters")
            await unlucky

    assert not was_settled
    assert [each["reason"] for each in await letters(sqlite)] == ["not recordable"]
    assert await lent(sqlite) == ["loan-1"]


async def test_what_the_transport_has_given_up_is_not_begun(sqlite: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), sqlite, resources={Clerk: clerk})
    given_up, wanted_still = (branch.batcher.take(wanted(number)) for number in (1, 2))
    given_up.cancel()

    async with branch.open():
        await wanted_still

    assert await lent(sqlite) == ["loan-2"]


@pytest.fixture
async def host(tmp_path: Path, clerk: Clerk) -> AsyncIterator[ServiceRuntime]:
    """The library's service as a transport runs it, on a file."""
    settings = Settings(data_dir=tmp_path, broker_url="embedded", watch_every=timedelta(milliseconds=20))
    host = ServiceRuntime(library(clerk), settings, Post(), clock=SystemClock())
    await host.start()
    await change(host.database, "INSERT INTO shelves (shelf, books) VALUES (1, 100)")
    yield host
    await host.stop()


@pytest.mark.parametrize("table", ["saga_log", "outbox", "overdue"])
async def test_a_service_whose_tables_take_nothing_is_not_ready(host: ServiceRuntime, table: str) -> None:
    was_recording = host.is_recording
    await rename(host.database, table, "hidden")
    delivery = host.take(wanted(1), again=False)

    await eventually(lambda: _is(not host.is_recording), what="the fault")
    await rename(host.database, "hidden", table)
    await asyncio.wait_for(delivery, timeout=20)
    await eventually(lambda: _is(host.is_recording), what="the recovery")

    assert was_recording
    assert await lent(host.database) == ["loan-1"]


async def test_a_letter_of_the_brokers_is_kept_once_its_table_takes_it(host: ServiceRuntime) -> None:
    letter = DeadLetter(
        id=new_id(), service="library", reason="rejected", error="by the broker", message=wanted(1), at=NOON
    )
    await rename(host.database, "dead_letters", "hidden")

    with capture_logs() as said:
        burying = asyncio.create_task(host.dead_letter(letter))
        await eventually(lambda: _is(any("cure" in each for each in said)), what="the cure")
        was_done = burying.done()
        await rename(host.database, "hidden", "dead_letters")
        await asyncio.wait_for(burying, timeout=20)

    assert not was_done
    assert [each["reason"] for each in await letters(host.database)] == ["rejected"]
