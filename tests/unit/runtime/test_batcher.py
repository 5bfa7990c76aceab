"""The inbox settles a message after its commit, and finds the one bad message of a batch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.event import listens_for
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.eventually import eventually
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import cut_off_everybody_else, lent, letters, log_of, notes, rename, states
from tests.example_sagas.loans import BookWanted, CardRefused, Clerk, library
from toolkit import Event, Service
from toolkit.declaration.events import AbortRequested
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import sqlite as sqlite_engines
from toolkit.persistence.database import Database
from toolkit.persistence.step_session import StepSession


@pytest.fixture
def service(clerk: Clerk) -> Service:
    return library(clerk)


@pytest.fixture
async def branch(service: Service, database: Database, clerk: Clerk) -> AsyncIterator[Branch]:
    one = Branch(service, database, resources={Clerk: clerk})
    async with one.open():
        yield one


def wanted(number: int, shelf: int = 1) -> WireMessage:
    return wire(BookWanted(loan_id=f"loan-{number}", shelf=shelf))


async def test_a_delivery_returns_once_its_effect_is_committed(branch: Branch, database: Database) -> None:
    await branch.batcher.deliver(wanted(1))

    assert await lent(database) == ["loan-1"]
    assert branch.batcher.is_healthy


async def test_waiting_messages_form_the_next_batch(branch: Branch, clerk: Clerk, database: Database) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    sessions = []

    async def hold(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()

    async def remember(_: Event, session: AsyncSession) -> None:
        sessions.append(session)

    clerk.will("lend_book", hold, *[remember] * 60)
    first = asyncio.create_task(branch.batcher.deliver(wanted(0)))
    await begun.wait()
    rest = [asyncio.create_task(branch.batcher.deliver(wanted(number))) for number in range(1, 61)]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, *rest)

    assert len(await lent(database)) == 61
    assert [sessions.count(each) for each in dict.fromkeys(sessions)] == [50, 10]


async def test_only_a_batchs_bad_message_is_retried(branch: Branch, clerk: Clerk, database: Database) -> None:
    messages = [wanted(1), wanted(2, shelf=77), wanted(3)]

    await asyncio.gather(*(branch.batcher.deliver(each) for each in messages))

    assert await lent(database) == ["loan-1", "loan-3"]
    assert await states(database, "loan-2") == []
    assert await notes(database, "loan-2") == ["retrying"]
    assert await notes(database, "loan-1") == await notes(database, "loan-3") == []
    await branch.batcher.deliver(messages[1])
    assert await states(database, "loan-2") == ["failed"]


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
    assert await letters(postgres) == []


async def test_two_replicas_apply_duplicates_once(service: Service, postgres: Database, clerk: Clerk) -> None:
    replicas = [Branch(service, postgres, resources={Clerk: clerk}, batch_size=7) for _ in range(2)]
    messages = [wanted(number) for number in range(60)] * 2

    async with replicas[0].open(), replicas[1].open():
        await asyncio.gather(*(replica.batcher.deliver(each) for replica in replicas for each in messages))

    assert sorted(await lent(postgres)) == sorted(f"loan-{number}" for number in range(60))


async def test_messages_settle_once_the_database_is_back(branch: Branch, database: Database) -> None:
    await rename(database, "saga_log", "hidden") if database.is_sqlite else await lock_out(database)
    deliveries = [asyncio.create_task(branch.batcher.deliver(wanted(number))) for number in range(5)]

    await eventually(lambda: _is(not branch.batcher.is_healthy), what="the outage")
    settled_meanwhile = [each for each in deliveries if each.done()]
    await rename(database, "hidden", "saga_log") if database.is_sqlite else await let_in(database)
    await asyncio.gather(*deliveries)

    assert settled_meanwhile == []
    assert await lent(database) == [f"loan-{number}" for number in range(5)]
    assert [await notes(database, f"loan-{number}") for number in range(5)] == [[]] * 5
    assert branch.batcher.is_healthy


class Probed(Database):
    """A database that counts the transactions which are tried on it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.tried = self.open = self.most_at_once = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[StepSession]:
        self.tried, self.open = self.tried + 1, self.open + 1
        self.most_at_once = max(self.most_at_once, self.open)
        try:
            async with super().transaction() as session:
                yield session
        finally:
            self.open -= 1


async def test_probes_of_an_absent_database_run_singly(service: Service, postgres: Database, clerk: Clerk) -> None:
    probed = Probed(postgres.url)
    one = Branch(service, probed, resources={Clerk: clerk}, batch_size=10)
    await lock_out(postgres)

    async with one.open():
        deliveries = [asyncio.create_task(one.batcher.deliver(wanted(number))) for number in range(50)]
        await eventually(lambda: _is(probed.tried >= 5), what="a few probes")
        settled_meanwhile = [each for each in deliveries if each.done()]
        await let_in(postgres)
        await eventually(lambda: _is(any(each.done() for each in deliveries)), what="a success")
        before = probed.tried
        await asyncio.gather(*deliveries)
        written = await lent(probed)
    await probed.close()

    assert settled_meanwhile == []
    assert probed.most_at_once == 1
    # No more than the rest of the fifty, by tens: the pauses are over with the first success.
    assert probed.tried - before <= 4
    assert len(written) == 50


async def test_a_database_that_only_reads_is_waited_for(service: Service, postgres: Database, clerk: Clerk) -> None:
    one = Branch(service, postgres, resources={Clerk: clerk})
    await _on_the_server(postgres, "SET default_transaction_read_only = on")

    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(1)))
        await eventually(lambda: _is(not one.batcher.is_healthy), what="the outage")
        was_settled = delivery.done()
        await _on_the_server(postgres, "RESET default_transaction_read_only")
        await delivery

    assert not was_settled
    assert await lent(postgres) == ["loan-1"]
    assert await notes(postgres, "loan-1") == []


async def test_a_full_disk_is_waited_for(service: Service, sqlite: Database, clerk: Clerk) -> None:
    full = Database(sqlite.url)
    pages = {"most": 1}  # SQLite takes it for as many as there are

    @listens_for(full.engine.sync_engine, "begin")
    def bound(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages['most']}")

    one = Branch(service, full, resources={Clerk: clerk})
    deliveries = []
    async with one.open():
        for number in range(200):
            deliveries.append(asyncio.create_task(one.batcher.deliver(wanted(number))))
        await eventually(lambda: _is(not one.batcher.is_healthy), what="the full disk")
        settled_meanwhile = [each for each in deliveries if each.done()]
        pages["most"] = 1_000_000
        await asyncio.gather(*deliveries)
    await full.close()

    assert len(settled_meanwhile) < len(deliveries)
    assert sorted(await lent(sqlite)) == sorted(f"loan-{number}" for number in range(200))
    assert await letters(sqlite) == []


async def _is(call: bool) -> bool:
    return call


async def lock_out(database: Database) -> None:
    """Let PostgreSQL end all connections of this database, and take no new ones."""
    await _on_the_server(database, "ALLOW_CONNECTIONS false")


async def let_in(database: Database) -> None:
    """Let PostgreSQL take connections again."""
    await _on_the_server(database, "ALLOW_CONNECTIONS true")


async def _on_the_server(database: Database, change: str) -> None:
    url = make_url(database.url)
    server = Database(url.set(database="postgres").render_as_string(hide_password=False))
    async with server.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f'ALTER DATABASE "{url.database}" {change}'))
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": url.database}
        )
    await server.close()


async def test_a_connection_lost_midway_costs_no_attempt(service: Service, postgres: Database, clerk: Clerk) -> None:
    one, neighbour = Branch(service, postgres, resources={Clerk: clerk}), Database(postgres.url)

    async def lose_the_connection(_: Event, session: AsyncSession) -> None:
        connection = await session.connection()
        await cut_off_everybody_else(neighbour)
        await connection.execute(text("SELECT 1"))

    clerk.will("lend_book", *[lose_the_connection] * 3)
    async with one.open():
        await asyncio.gather(one.batcher.deliver(wanted(1)), one.batcher.deliver(wanted(2)))
    await neighbour.close()

    assert await lent(postgres) == ["loan-1", "loan-2"]
    assert await notes(postgres, "loan-1") == await notes(postgres, "loan-2") == []


async def test_a_connection_lost_before_commit_loses_nothing(
    service: Service, postgres: Database, clerk: Clerk
) -> None:
    one, neighbour = Branch(service, postgres, resources={Clerk: clerk}), Database(postgres.url)

    async def be_cut_off_later(_: Event, __: AsyncSession) -> None:
        await cut_off_everybody_else(neighbour)

    clerk.will("lend_book", be_cut_off_later)
    async with one.open():
        await one.batcher.deliver(wanted(1))
    await neighbour.close()

    assert await lent(postgres) == ["loan-1"]
    assert await notes(postgres, "loan-1") == []


async def test_a_locked_sqlite_file_is_waited_for(
    service: Service, sqlite: Database, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_engines, "_BUSY_TIMEOUT_MS", 20)
    impatient = Database(sqlite.url)
    one = Branch(service, impatient, resources={Clerk: clerk})
    other = sqlite3.connect(str(make_url(sqlite.url).database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(1)))
        await eventually(lambda: _is(not one.batcher.is_healthy), what="the outage")
        was_settled = delivery.done()
        other.execute("COMMIT")
        await delivery
    other.close()
    await impatient.close()

    assert not was_settled
    assert await lent(sqlite) == ["loan-1"]


async def test_an_outage_repeats_the_call_under_its_key(sqlite: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk, external=True), sqlite, resources={Clerk: clerk})
    called, may_end = asyncio.Event(), asyncio.Event()

    async def call(_: Event, __: AsyncSession) -> None:
        called.set()
        await may_end.wait()

    clerk.will("lend_book", call)
    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(1)))
        await called.wait()
        await rename(sqlite, "saga_log", "hidden")
        may_end.set()
        await eventually(lambda: _is(not one.batcher.is_healthy), what="the outage")
        was_settled = delivery.done()
        await rename(sqlite, "hidden", "saga_log")
        await delivery

    assert not was_settled
    assert await states(sqlite, "loan-1") == ["executing", "completed"]
    assert len(await lent(sqlite)) == 1


async def test_an_unrecordable_message_becomes_a_dead_letter(postgres: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk), postgres, resources={Clerk: clerk})
    await forbid_entries_of_loan_13(postgres)

    async with one.open():
        await asyncio.gather(*(one.batcher.deliver(wanted(number)) for number in (12, 13, 14)))

    assert await lent(postgres) == ["loan-12", "loan-14"]
    (kept,) = await letters(postgres)
    assert (kept["reason"], kept["saga_id"], kept["event_type"]) == ("not recordable", "loan-13", "BookWanted")
    assert one.batcher.is_healthy


async def test_an_unrecordable_call_becomes_a_dead_letter(postgres: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk, external=True), postgres, resources={Clerk: clerk})

    async def forbid(_: Event, __: AsyncSession) -> None:
        await forbid_entries_of_loan_13(postgres)

    clerk.will("lend_book", forbid)
    async with one.open():
        unlucky = asyncio.create_task(one.batcher.deliver(wanted(13)))
        await eventually(lambda: _is(not one.batcher.is_healthy), what="the error")
        was_settled = unlucky.done()
        await one.batcher.deliver(wanted(14))
        await unlucky

    assert not was_settled
    assert await states(postgres, "loan-13") == ["executing"]
    assert await states(postgres, "loan-14") == ["executing", "completed"]
    assert [each["saga_id"] for each in await letters(postgres)] == ["loan-13"]


async def forbid_entries_of_loan_13(database: Database) -> None:
    """Have the database turn down whatever the log is to say of this loan."""
    refuse = "CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no'; END $$ LANGUAGE plpgsql"
    trigger = (
        "CREATE TRIGGER unlucky BEFORE INSERT ON saga_log FOR EACH ROW"
        " WHEN (NEW.saga_id = 'loan-13') EXECUTE FUNCTION no()"
    )
    async with database.engine.begin() as connection:
        await connection.execute(text(refuse))
        await connection.execute(text(trigger))


async def test_an_abandoned_delivery_is_still_executed(branch: Branch, clerk: Clerk, database: Database) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()

    clerk.will("lend_book", hold)
    delivery = asyncio.create_task(branch.batcher.deliver(wanted(1)))
    await begun.wait()

    delivery.cancel()
    with suppress(asyncio.CancelledError):
        await delivery
    go_on.set()
    await branch.batcher.deliver(wanted(2))

    assert await lent(database) == ["loan-1", "loan-2"]


async def test_an_abandoned_delivery_may_fail_silently(postgres: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk, external=True), postgres, resources={Clerk: clerk})
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def forbid(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()
        await forbid_entries_of_loan_13(postgres)

    clerk.will("lend_book", forbid)
    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(13)))
        await begun.wait()
        delivery.cancel()
        with suppress(asyncio.CancelledError):
            await delivery
        go_on.set()
        await one.batcher.drain()

    assert one.batcher.is_idle
    assert await states(postgres, "loan-13") == ["executing"]


async def test_draining_waits_for_outside_calls(database: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk, external=True), database, resources={Clerk: clerk})
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def call(_: Event, __: AsyncSession) -> None:
        begun.set()
        await may_end.wait()

    clerk.will("lend_book", call)
    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(1)))
        await begun.wait()
        draining = asyncio.create_task(one.batcher.drain())
        done, _ = await asyncio.wait({draining}, timeout=0.05)
        may_end.set()
        await asyncio.gather(draining, delivery)

    assert not done
    assert await states(database, "loan-1") == ["executing", "completed"]


async def test_an_unreadable_message_settles_as_dead_letter(branch: Branch, database: Database) -> None:
    await asyncio.gather(
        branch.batcher.deliver(WireMessage(b"{", "reader.BookWanted")), branch.batcher.deliver(wanted(1))
    )

    assert await lent(database) == ["loan-1"]
    assert [each["reason"] for each in await letters(database)] == ["not JSON"]


async def test_no_message_is_returned_to_the_broker(branch: Branch, database: Database) -> None:
    back = CardRefused(loan_id="loan-1", reason="a\0b" + "x" * 10_000)
    stop = AbortRequested(saga_type="loan", saga_id="loan-2", reason="a\0b")

    await branch.batcher.deliver(wire(back))
    await branch.batcher.deliver(wire(stop, saga_id="loan-2"))

    assert await states(database, "loan-1") == await states(database, "loan-2") == ["fenced"]


async def test_draining_waits_for_messages_not_yet_batched(branch: Branch, database: Database) -> None:
    delivery = asyncio.create_task(branch.batcher.deliver(wanted(1)))
    await asyncio.sleep(0)

    await branch.batcher.drain()
    await delivery

    assert await lent(database) == ["loan-1"]


async def test_a_stopped_batcher_finishes_its_batch_only(service: Service, database: Database, clerk: Clerk) -> None:
    one = Branch(service, database, resources={Clerk: clerk}, batch_size=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()

    clerk.will("lend_book", hold)
    deliveries = [asyncio.create_task(one.batcher.deliver(wanted(number))) for number in (1, 2)]
    running = asyncio.create_task(one.batcher.run())
    await begun.wait()

    one.batcher.stop()
    go_on.set()
    await asyncio.wait_for(running, timeout=5)
    await deliveries[0]
    was_left = not deliveries[1].done()
    deliveries[1].cancel()

    assert was_left
    assert await lent(database) == ["loan-1"]
