"""During an outage of the database the batcher settles no message, and no message loses an attempt."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.event import listens_for
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.eventually import becomes_true
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import dead_letters_of, lent, notes, rename, states, terminate_other_connections
from tests.example_sagas.loans import Clerk, library
from tests.unit.runtime.database_faults import let_in, lock_out, on_the_server
from tests.unit.runtime.loan_requests import wanted
from toolkit import Event, Service
from toolkit.persistence import sqlite as sqlite_engines
from toolkit.persistence.database import Database
from toolkit.persistence.step_session import StepSession


async def test_messages_settle_once_the_database_is_back(running_branch: Branch, database: Database) -> None:
    await rename(database, "saga_log", "hidden") if database.is_sqlite else await lock_out(database)
    deliveries = [asyncio.create_task(running_branch.batcher.deliver(wanted(number))) for number in range(5)]

    await becomes_true(lambda: not running_branch.batcher.is_healthy, what="the outage")
    settled_meanwhile = [each for each in deliveries if each.done()]
    await rename(database, "hidden", "saga_log") if database.is_sqlite else await let_in(database)
    await asyncio.gather(*deliveries)

    assert settled_meanwhile == []
    assert await lent(database) == [f"loan-{number}" for number in range(5)]
    assert [await notes(database, f"loan-{number}") for number in range(5)] == [[]] * 5
    assert running_branch.batcher.is_healthy


class Probed(Database):
    """A database that counts its transactions, and how many are open at once."""

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
        await becomes_true(lambda: probed.tried >= 5, what="a few probes")
        settled_meanwhile = [each for each in deliveries if each.done()]
        await let_in(postgres)
        await becomes_true(lambda: any(each.done() for each in deliveries), what="a success")
        before = probed.tried
        await asyncio.gather(*deliveries)
        written = await lent(probed)
    await probed.close()

    assert settled_meanwhile == []
    assert probed.most_at_once == 1
    # The rest of the fifty in batches of ten: the first success ends the pauses.
    assert probed.tried - before <= 4
    assert len(written) == 50


async def test_a_database_that_only_reads_is_waited_for(service: Service, postgres: Database, clerk: Clerk) -> None:
    one = Branch(service, postgres, resources={Clerk: clerk})
    await on_the_server(postgres, "SET default_transaction_read_only = on")

    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(1)))
        await becomes_true(lambda: not one.batcher.is_healthy, what="the outage")
        was_settled = delivery.done()
        await on_the_server(postgres, "RESET default_transaction_read_only")
        await delivery

    assert not was_settled
    assert await lent(postgres) == ["loan-1"]
    assert await notes(postgres, "loan-1") == []


async def test_a_full_disk_is_waited_for(service: Service, sqlite: Database, clerk: Clerk) -> None:
    full = Database(sqlite.url)
    pages = {"most": 1}  # SQLite raises it to the pages in use

    @listens_for(full.engine.sync_engine, "begin")
    def bound(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages['most']}")

    one = Branch(service, full, resources={Clerk: clerk})
    deliveries = []
    async with one.open():
        for number in range(200):
            deliveries.append(asyncio.create_task(one.batcher.deliver(wanted(number))))
        await becomes_true(lambda: not one.batcher.is_healthy, what="the full disk")
        settled_meanwhile = [each for each in deliveries if each.done()]
        pages["most"] = 1_000_000
        await asyncio.gather(*deliveries)
    await full.close()

    assert len(settled_meanwhile) < len(deliveries)
    assert sorted(await lent(sqlite)) == sorted(f"loan-{number}" for number in range(200))
    assert await dead_letters_of(sqlite) == []


async def test_a_connection_lost_midway_costs_no_attempt(service: Service, postgres: Database, clerk: Clerk) -> None:
    one, neighbour = Branch(service, postgres, resources={Clerk: clerk}), Database(postgres.url)

    async def lose_the_connection(_: Event, session: AsyncSession) -> None:
        connection = await session.connection()
        await terminate_other_connections(neighbour)
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
        await terminate_other_connections(neighbour)

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
        await becomes_true(lambda: not one.batcher.is_healthy, what="the outage")
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
        await becomes_true(lambda: not one.batcher.is_healthy, what="the outage")
        was_settled = delivery.done()
        await rename(sqlite, "hidden", "saga_log")
        await delivery

    assert not was_settled
    assert await states(sqlite, "loan-1") == ["executing", "completed"]
    assert len(await lent(sqlite)) == 1
