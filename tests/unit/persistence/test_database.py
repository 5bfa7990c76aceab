"""Both databases behave alike: commits are durable, writers lose no update, and an outage is reported."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import DBAPIError

from tests.example_sagas.loan_rows import rename
from tests.example_sagas.loans import NOON, shelves
from toolkit.errors import DatabaseUnavailableError, StepError
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import breaks_off, is_contention, is_outage
from toolkit.persistence.schema import UtcDateTime

diary = MetaData()
entries = Table("diary", diary, Column("id", Integer, primary_key=True), Column("at", UtcDateTime))


async def books(database: Database) -> int:
    async with database.reading() as connection:
        return await connection.scalar(select(shelves.c.books).where(shelves.c.shelf == 1))


async def take_one_book(database: Database) -> None:
    """Read, then write the value less one: two transactions at once must not read the same value."""
    async with database.transaction() as session:
        connection = await session.connection()
        query = select(shelves.c.books).where(shelves.c.shelf == 1).with_for_update()
        left = await connection.scalar(query)
        await asyncio.sleep(0)
        await connection.execute(shelves.update().where(shelves.c.shelf == 1).values(books=left - 1))


async def test_a_transaction_commits_at_its_end(database: Database) -> None:
    await take_one_book(database)

    assert await books(database) == 99


async def test_a_failed_or_cancelled_transaction_leaves_nothing(database: Database) -> None:
    async def empty_the_shelves(error: type[BaseException]) -> None:
        async with database.transaction() as session:
            await (await session.connection()).execute(shelves.update().values(books=0))
            raise error

    for error in (RuntimeError, asyncio.CancelledError):
        with pytest.raises(error):
            await empty_the_shelves(error)

    assert await books(database) == 100


async def test_writers_at_once_lose_no_update(database: Database) -> None:
    await asyncio.gather(*(take_one_book(database) for _ in range(40)))

    assert await books(database) == 60


async def test_two_processes_on_one_file_lose_no_update(sqlite: Database) -> None:
    other = Database(sqlite.url)

    await asyncio.gather(*(take_one_book(each) for each in [sqlite, other] * 20))
    await other.close()

    assert await books(sqlite) == 60


async def test_a_reader_sees_committed_rows_without_waiting(database: Database) -> None:
    async with database.transaction() as session:
        await (await session.connection()).execute(shelves.update().values(books=0))
        meanwhile = await books(database)

    assert (meanwhile, await books(database)) == (100, 0)


async def test_a_steps_session_cannot_end_its_transaction(database: Database) -> None:
    async with database.transaction() as session:
        with pytest.raises(StepError, match="never commits"):
            await session.commit()
        with pytest.raises(StepError, match="never rolls back"):
            await session.rollback()


async def test_tables_are_made_once_however_many_replicas_start(database: Database) -> None:
    replicas = [Database(database.url) for _ in range(4)]

    await asyncio.gather(*(replica.create_tables(diary) for replica in replicas))
    for replica in replicas:
        await replica.close()

    async with database.reading() as connection:
        assert (await connection.execute(select(entries))).all() == []


@pytest.mark.parametrize("moment", [NOON, NOON.astimezone(timezone(timedelta(hours=9))), None])
async def test_a_moment_comes_back_as_itself_in_utc(database: Database, moment: datetime | None) -> None:
    await database.create_tables(diary)

    async with database.transaction() as session:
        await (await session.connection()).execute(insert(entries).values(at=moment))

    async with database.reading() as connection:
        kept = await connection.scalar(select(entries.c.at))
    assert kept == moment
    assert kept is None or kept.tzinfo is not None
    assert kept is None or kept.utcoffset() == UTC.utcoffset(None)


async def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'not' / 'yet' / 'there.db'}")

    await database.ping()
    await database.close()

    assert (tmp_path / "not" / "yet" / "there.db").exists()


async def test_a_database_in_memory_needs_no_folder() -> None:
    database = Database("sqlite://")

    await database.ping()
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await database.close()


async def test_a_database_that_answers_is_there(database: Database) -> None:
    assert await database.ping() is None


async def test_an_outage_of_the_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a-folder.db").mkdir()
    away = [Database("postgresql://nobody@127.0.0.1:9/none"), Database(f"sqlite:///{tmp_path / 'a-folder.db'}")]

    for database in away:
        with pytest.raises(DatabaseUnavailableError, match="does not answer") as caught:
            await database.ping()
        assert is_outage(caught.value)
        await database.close()


async def fail_with(database: Database, sqlstate: str) -> DBAPIError:
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{sqlstate}'; END $$"
    with pytest.raises(DBAPIError) as caught:
        async with database.transaction() as session:
            await (await session.connection()).execute(text(statement))
    return caught.value


@pytest.mark.parametrize(
    ("sqlstate", "outage", "breaking", "contention"),
    [
        ("57P01", True, True, False),  # shutting down
        ("57P03", True, True, False),  # starting up
        ("08006", True, True, False),  # connection lost
        ("53300", True, False, False),  # too many connections
        ("53100", True, False, False),  # disk full
        ("25006", True, False, False),  # now a replica
        ("XX000", True, False, False),  # the server's own fault
        ("40P01", False, False, True),  # deadlock
        ("40001", False, False, True),  # failed serialization
        ("23505", False, False, False),  # a unique key
        ("22P02", False, False, False),  # a value that can't be read
        ("P0001", False, False, False),  # raised by a trigger
    ],
)
async def test_postgresql_errors_are_classified_by_sqlstate(
    postgres: Database, sqlstate: str, outage: bool, breaking: bool, contention: bool
) -> None:
    error = await fail_with(postgres, sqlstate)

    assert (is_outage(error), breaks_off(error), is_contention(error)) == (outage, breaking, contention)


async def test_other_errors_are_no_contention_or_break() -> None:
    assert not is_contention(RuntimeError("deadlock"))
    assert not breaks_off(ConnectionError("away"))
    assert is_outage(ConnectionRefusedError("away"))
    assert not is_outage(ValueError("wrong"))


async def test_a_missing_table_is_no_outage_on_postgresql(postgres: Database) -> None:
    await rename(postgres, "shelves", "hidden")

    with pytest.raises(DBAPIError) as caught:
        await books(postgres)

    assert not is_outage(caught.value)


async def test_a_broken_connection_releases_the_write_lock(sqlite: Database) -> None:
    async with sqlite.engine.connect() as connection:
        await connection.execute(shelves.update().values(books=0))
        await connection.invalidate()

    await asyncio.wait_for(take_one_book(sqlite), timeout=5)

    assert await books(sqlite) == 99
