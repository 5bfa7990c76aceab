"""The transaction of a batch: of one statement, or with a session that a step asked for."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.counting import counted_thread_changes
from tests.driver_statements import recorded
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import lent, log_of, rows_left
from tests.example_sagas.loans import NOON
from tests.round_trips import counted
from tests.unit.persistence.saga_entries import append, entry
from tests.unit.runtime.copies import Slip, slips, tables
from toolkit.errors import PositionTakenError, RowsNotWrittenError, StepError
from toolkit.persistence.batch_write import BatchWrite
from toolkit.persistence.database import Database
from toolkit.protocol.keys import StreamKey

KEY: StreamKey = ("loan", "loan-1", "lend_book")
BATCH = BatchWrite(entries=[entry()], rows=[outbox_row("loan-1", due_at=NOON)])
_place: ContextVar[str] = ContextVar("place", default="elsewhere")
INSERT = text("INSERT INTO loans (loan_id, shelf) VALUES ('loan-1', 1)")


async def written(database: Database) -> tuple[int, int]:
    return len(await log_of(database, "loan-1")), len(await rows_left(database))


async def test_a_batch_without_session_is_written(database: Database) -> None:
    async with database.batch() as transaction:
        assert await transaction.read_streams(["loan-1"]) == {}
        assert await transaction.write(BATCH)

    assert await written(database) == (1, 1)


async def test_rows_of_the_session_are_committed_along(database: Database) -> None:
    await database.create_tables(tables)

    async with database.batch() as transaction:
        await transaction.read_streams(["loan-1"])
        transaction.session.add(Slip(loan_id="loan-1"))
        await transaction.write(BATCH)

    assert await slips(database) == ["loan-1"]
    assert await written(database) == (1, 1)


@pytest.mark.parametrize("uses_session", [False, True])
async def test_a_failure_before_the_write_undoes_all(database: Database, uses_session: bool) -> None:
    async def fail() -> None:
        async with database.batch() as transaction:
            await transaction.read_streams(["loan-1"])
            if uses_session:
                await (await transaction.session.connection()).execute(INSERT)
            raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError):
        await fail()

    assert await lent(database) == []
    assert await written(database) == (0, 0)


async def test_a_failure_after_the_write_undoes_the_session(postgres: Database) -> None:
    async def fail() -> None:
        async with postgres.batch() as transaction:
            await (await transaction.session.connection()).execute(INSERT)
            await transaction.write(BATCH)
            raise RuntimeError("after the write")

    with pytest.raises(RuntimeError):
        await fail()

    assert await lent(postgres) == []
    assert await written(postgres) == (0, 0)


@pytest.mark.parametrize("uses_session", [False, True])
async def test_a_taken_position_undoes_the_batch(database: Database, uses_session: bool) -> None:
    await append(database, entry(to="fenced"))

    async def lose() -> None:
        async with database.batch() as transaction:
            assert KEY in await transaction.read_streams(["loan-1"])
            if uses_session:
                await (await transaction.session.connection()).execute(INSERT)
            await transaction.write(BATCH)

    with pytest.raises(PositionTakenError):
        await lose()

    assert await lent(database) == []
    assert await written(database) == (1, 0)


@pytest.mark.parametrize("end", ["commit", "rollback", "close", "commit of its connection"])
async def test_the_session_ends_no_transaction(database: Database, end: str) -> None:
    async def end_it() -> None:
        async with database.batch() as transaction:
            connection = await transaction.session.connection()
            await connection.execute(INSERT)
            await (connection.commit() if "connection" in end else getattr(transaction.session, end)())

    with pytest.raises(StepError):
        await end_it()

    assert await lent(database) == []


async def test_savepoints_of_the_session_work(database: Database) -> None:
    async with database.batch() as transaction:
        savepoint = await transaction.session.begin_nested()
        await (await transaction.session.connection()).execute(INSERT)
        await savepoint.rollback()
        await transaction.write(BATCH)

    assert await lent(database) == []
    assert await written(database) == (1, 1)


async def test_a_statement_on_the_connection_is_committed(database: Database) -> None:
    async with database.batch() as transaction:
        await transaction.connection.execute(INSERT)
        await transaction.write(BATCH)

    assert await lent(database) == ["loan-1"]
    assert await written(database) == (1, 1)


async def test_a_failed_statement_leaves_a_usable_pool(postgres: Database) -> None:
    for _ in range(3):
        with pytest.raises(DBAPIError):
            async with postgres.batch() as transaction:
                await transaction.write(BatchWrite(entries=[entry(error="\0")]))
    async with postgres.engine.connect() as connection:
        await connection.execute(INSERT)  # it begins a transaction again
    async with postgres.batch() as transaction:
        await transaction.write(BATCH)

    assert await lent(postgres) == []
    assert await written(postgres) == (1, 1)


async def test_sqlite_begins_no_transaction_to_read(sqlite: Database) -> None:
    async with sqlite.batch() as reader, sqlite.batch() as writer:
        await (await writer.session.connection()).execute(INSERT)  # it holds the write lock from here on
        assert await reader.read_streams(["loan-1"]) == {}
        await writer.write(BATCH)

    assert await written(sqlite) == (1, 1)


async def test_the_statements_of_a_batch_without_session(postgres: Database) -> None:
    with recorded(postgres) as statements:
        async with postgres.batch() as transaction:
            await transaction.read_streams(["loan-1"])
            await transaction.write(BATCH)

    assert [statement.split()[0] for statement, _ in statements] == ["SELECT", "WITH"]


@pytest.mark.parametrize(("uses_session", "expected"), [(False, 2), (True, 5)])
async def test_a_batch_costs_few_round_trips(postgres: Database, uses_session: bool, expected: int) -> None:
    async with counted(postgres.url) as trips:
        database = Database(trips.url)
        await database.create_tables(tables)
        for number in range(2):
            before = trips.count
            async with database.batch() as transaction:
                await transaction.read_streams(["loan-1"])
                if uses_session:
                    transaction.session.add(Slip(loan_id=f"loan-{number}"))
                await transaction.write(BatchWrite(entries=[entry(position=number)]))
            taken = trips.count - before
        await database.close()

    assert taken == expected


@pytest.mark.parametrize(("uses_session", "reads", "expected"), [(False, False, 1), (True, False, 1), (True, True, 2)])
async def test_a_batch_on_sqlite_changes_threads_once(
    sqlite: Database, uses_session: bool, reads: bool, expected: int
) -> None:
    await sqlite.create_tables(tables)

    with counted_thread_changes() as changes:
        async with sqlite.batch() as transaction:
            if reads:
                await transaction.read_streams(["loan-1"])
            if uses_session:
                transaction.session.add(Slip(loan_id="loan-1"))
            await transaction.write(BATCH)

    assert len(changes) == expected
    assert await written(sqlite) == (1, 1)
    assert await slips(sqlite) == ["loan-1"] * uses_session


async def test_a_statement_on_sqlite_changes_threads_once(sqlite: Database) -> None:
    with counted_thread_changes() as changes:
        async with sqlite.engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).all() == [(1,)]

    assert len(changes) == 2  # the statement with its BEGIN, and the ROLLBACK


async def test_a_transaction_without_statements_stays_in_its_thread(sqlite: Database) -> None:
    with counted_thread_changes() as changes:
        async with sqlite.engine.begin():
            pass

    assert changes == []


async def test_a_row_that_sqlite_rejects_undoes_the_batch(sqlite: Database) -> None:
    await sqlite.create_tables(tables)
    async with sqlite.transaction() as session:
        session.add(Slip(loan_id="loan-1"))

    async def write() -> None:
        async with sqlite.batch() as transaction:
            transaction.session.add(Slip(loan_id="loan-1"))
            await transaction.write(BATCH)

    with pytest.raises(RowsNotWrittenError) as caught:
        await write()

    assert isinstance(caught.value.__cause__, IntegrityError)
    assert await written(sqlite) == (0, 0)


async def test_a_cancelled_batch_on_sqlite_waits_for_its_thread(sqlite: Database) -> None:
    await sqlite.create_tables(tables)
    ended = list[bool]()

    async def write() -> None:
        async with sqlite.batch() as transaction:
            session = transaction.session
            session.add(Slip(loan_id="loan-1"))

            def flush_slowly(*_: object) -> None:
                time.sleep(0.3)
                ended.append(True)

            event.listen(session.sync_session, "after_flush", flush_slowly)
            await transaction.write(BATCH)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await write()

    assert ended == [True]
    async with sqlite.batch() as transaction:
        await transaction.write(BatchWrite(entries=[entry(step="return_book")]))


async def test_listeners_of_a_session_keep_their_context(sqlite: Database) -> None:
    await sqlite.create_tables(tables)
    seen = list[str]()

    async with sqlite.batch() as transaction:
        session = transaction.session
        event.listen(session.sync_session, "before_commit", lambda _: seen.append(_place.get()))
        session.add(Slip(loan_id="loan-1"))
        _place.set("here")
        await transaction.write(BATCH)

    assert seen == ["here"]
