"""A statement on the driver's cursor fails as one of SQLAlchemy's does, and leaves its connection in the same state."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.example_sagas.loan_rows import lent, terminate_other_connections
from toolkit.errors import DatabaseUnavailableError
from toolkit.persistence import database_errors
from toolkit.persistence.database import Database
from toolkit.persistence.direct_statements import fetch, run_in_thread

#: How errors are classified.
PREDICATES: tuple[Callable[[BaseException], bool], ...] = (
    database_errors.is_contention,
    database_errors.is_outage,
    database_errors.is_refusal,
    database_errors.breaks_off,
    database_errors.is_unfit,
    database_errors.may_pass,
    database_errors.is_of_data,
    database_errors.is_of_values,
)
#: Lost, shutting down, crashed, out of memory, disk full, read-only, broken, deadlock, serialization, lock not
#: available, cancelled, a trigger's, a bad number, a violated key, no table, no right, too complex.
CODES = (
    "08006", "57P01", "57P02", "53200", "53100", "25006", "58030", "40P01", "40001", "55P03", "57014", "P0001", "22003",
    "23505", "42P01", "42501", "54000", "0A000",
)  # fmt: skip
INSERT = "INSERT INTO loans (loan_id, shelf) VALUES ('loan-1', 1)"


async def error_of(database: Database, direct: bool, statement: str) -> tuple[BaseException, bool]:
    """Return the error of a statement, and whether its connection was invalidated."""
    async with database.engine.connect() as connection:
        try:
            await (fetch(connection, statement, ()) if direct else connection.execute(text(statement)))
        except Exception as error:  # noqa: BLE001 -- which error it is, is the question
            return error, connection.invalidated
    raise AssertionError("no error")


async def backend(connection: AsyncConnection) -> int:
    return int((await fetch(connection, "SELECT pg_backend_pid()", ()))[0][0])


@pytest.mark.parametrize("code", CODES)
async def test_an_error_is_classified_as_sqlalchemys(postgres: Database, code: str) -> None:
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{code}', DETAIL = 'secret'; END $$"

    (expected, _), (error, is_invalidated) = [await error_of(postgres, direct, statement) for direct in (False, True)]

    assert type(error) is type(expected)
    assert type(error.orig) is type(expected.orig)  # type: ignore[attr-defined]
    assert [each(error) for each in PREDICATES] == [each(expected) for each in PREDICATES]
    assert database_errors.cure_of(error) == database_errors.cure_of(expected)
    assert database_errors.describe_fault(error) == database_errors.describe_fault(expected)
    assert "secret" not in str(error)
    assert not is_invalidated


async def test_rows_and_writes_are_of_the_session(database: Database) -> None:
    async with database.transaction() as session:
        connection = await session.connection()
        await connection.execute(text(INSERT))
        rows = await fetch(connection, "SELECT loan_id, shelf FROM loans", ())
        assert [tuple(row) for row in rows] == [("loan-1", 1)]
        await fetch(connection, INSERT.replace("loan-1", "loan-2"), ())

    assert await lent(database) == ["loan-1", "loan-2"]


async def test_a_direct_write_alone_is_rolled_back(database: Database) -> None:
    async with database.engine.connect() as connection:
        await fetch(connection, INSERT, ())
        assert connection.in_transaction()
        await connection.rollback()

    assert await lent(database) == []


async def test_a_lost_connection_leaves_the_pool(postgres: Database) -> None:
    neighbour = Database(postgres.url)
    async with postgres.engine.connect() as connection:
        before = await backend(connection)
        await terminate_other_connections(neighbour)
        with pytest.raises(DBAPIError) as caught:
            await fetch(connection, "SELECT 1", ())
        assert connection.invalidated
    async with postgres.engine.connect() as connection:
        after = await backend(connection)
    await neighbour.close()

    assert database_errors.breaks_off(caught.value)
    assert database_errors.is_outage(caught.value)
    assert after != before


async def test_a_silent_server_invalidates_the_pool(postgres: Database) -> None:
    impatient = Database(f"{postgres.url}?command_timeout=1")
    async with impatient.engine.connect() as connection, impatient.engine.connect() as other:
        before = await backend(other)
        await other.close()
        with pytest.raises(DatabaseUnavailableError):
            await fetch(connection, "SELECT pg_sleep(10)", ())
        assert connection.invalidated
    async with impatient.engine.connect() as connection:
        after = await backend(connection)
    await impatient.close()

    assert after != before


async def test_a_cancelled_statement_discards_its_connection(postgres: Database) -> None:
    async with postgres.engine.connect() as connection:
        before = await backend(connection)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await fetch(connection, "SELECT pg_sleep(10)", ())
        assert connection.invalidated
    async with postgres.engine.connect() as connection:
        assert await backend(connection) != before


async def test_a_changed_table_is_read_anew(postgres: Database) -> None:
    async with postgres.engine.connect() as connection:
        await fetch(connection, "SELECT shelf FROM loans", ())
    async with postgres.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE loans ALTER COLUMN shelf TYPE bigint"))

    async with postgres.engine.connect() as connection:
        with pytest.raises(DBAPIError, match="cached") as caught:
            await fetch(connection, "SELECT shelf FROM loans", ())
    async with postgres.engine.connect() as connection:
        await fetch(connection, "SELECT shelf FROM loans", ())

    assert database_errors.breaks_off(caught.value)


async def test_a_failure_in_the_thread_is_sqlalchemys(sqlite: Database) -> None:
    def fail(driver: sqlite3.Connection) -> None:
        driver.execute("SELECT * FROM nowhere")

    async with sqlite.engine.connect() as connection:
        with pytest.raises(OperationalError, match="no such table: nowhere") as caught:
            await run_in_thread(connection, fail, "SELECT * FROM nowhere")

    assert isinstance(caught.value.orig, sqlite3.OperationalError)
    assert caught.value.statement == "SELECT * FROM nowhere"


async def test_a_cancelled_change_to_the_thread_frees_the_lock(sqlite: Database) -> None:
    def write_slowly(driver: sqlite3.Connection) -> None:
        driver.execute(INSERT)
        time.sleep(0.3)

    async with sqlite.engine.connect() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await run_in_thread(connection, write_slowly, INSERT)
        assert connection.invalidated
    async with sqlite.engine.begin() as connection:
        await connection.execute(text(INSERT))

    assert await lent(sqlite) == ["loan-1"]


async def test_a_statement_cancelled_before_it_begins_ends(sqlite: Database) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def begin_late(driver: sqlite3.Connection) -> None:
        time.sleep(0.3)
        driver.execute(endless)

    async with sqlite.engine.connect() as connection, asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await run_in_thread(connection, begin_late, endless)


async def test_a_closed_file_is_an_outage(sqlite: Database) -> None:
    async with sqlite.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver
        await driver.close()
        with pytest.raises(OperationalError) as caught:
            await run_in_thread(connection, lambda _: None, "SELECT 1")
        assert connection.invalidated

    assert database_errors.breaks_off(caught.value)
