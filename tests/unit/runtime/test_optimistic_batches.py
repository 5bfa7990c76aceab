"""A batch runs without savepoints first; a step that fails or refuses in it leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, column, event, func, insert, literal_column, table, text
from sqlalchemy import select as sa_select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import states
from tests.example_sagas.loans import BookLent, BookWanted, LoanRefused, loan_saga
from toolkit import Event, Participant, RetryPolicy, Service
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_contention
from toolkit.persistence.plain_reads import PlainReads

tables = MetaData()
#: What PostgreSQL says where a transaction is ended for another one's sake.
CONTEND = """
CREATE FUNCTION contend() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'another one was faster' USING ERRCODE = 'serialization_failure'; END $$
"""
Act = Callable[[BookWanted, AsyncSession], Awaitable[Event | None]]


class Base(SQLModel, registry=registry(metadata=tables)):
    """The branch's own tables."""


class Copy(Base, table=True):
    number: str = Field(primary_key=True)
    lent: int = 0


class Slip(Base, table=True):
    loan_id: str = Field(primary_key=True)


class Counter:
    """What the steps of a test do, by loan, and how often they were called."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}
        self.calls: list[str] = []


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
async def branch(database: Database, counter: Counter) -> Branch:
    return await open_branch(database, counter)


async def open_branch(database: Database, counter: Counter) -> Branch:
    participant = Participant("library", saga=loan_saga, retry=RetryPolicy(attempts=1))

    async def lend_book(event: BookWanted, session: AsyncSession) -> BookLent | LoanRefused:
        counter.calls.append(event.loan_id)
        if event.loan_id in counter.acts and (answer := await counter.acts[event.loan_id](event, session)):
            return answer  # type: ignore[return-value]
        session.add(Slip(loan_id=event.loan_id))
        return BookLent(loan_id=event.loan_id)

    participant.step()(lend_book)
    await database.create_tables(tables)
    async with database.transaction() as session:
        session.add(Copy(number="copy-1"))
    return Branch(Service(name="library", participants=[participant], tables=tables), database, resources={})


async def slips(database: Database) -> list[str]:
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT loan_id FROM slip ORDER BY loan_id"))).scalars())


async def lent(database: Database) -> int:
    async with database.reading() as connection:
        return int(await connection.scalar(text("SELECT lent FROM copy")) or 0)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Note what is executed meanwhile."""
    said: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        said.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield said
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


def wanted(*numbers: int) -> list[BookWanted]:
    return [BookWanted(loan_id=f"loan-{number}") for number in numbers]


async def lend_a_copy(_: BookWanted, session: AsyncSession) -> None:
    (await session.get_one(Copy, "copy-1")).lent += 1


async def test_a_successful_batch_takes_no_savepoint(branch: Branch, database: Database, counter: Counter) -> None:
    with statements(database) as said:
        await branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-2", "loan-3"]
    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert not [each for each in said if "SAVEPOINT" in each]
    assert len([each for each in said if each.startswith("INSERT INTO slip")]) == 1


async def test_a_refusal_without_writes_causes_no_fallback(
    branch: Branch, database: Database, counter: Counter
) -> None:
    async def look_and_refuse(event: BookWanted, session: AsyncSession) -> Event:
        await session.get_one(Copy, "copy-1")
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts["loan-1"] = look_and_refuse
    await branch.take(*wanted(1, 2, 3))

    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert await states(database, "loan-1") == ["failed"]


async def add_a_row(event: BookWanted, session: AsyncSession) -> None:
    session.add(Slip(loan_id=f"half of {event.loan_id}"))


async def change_a_row(_: BookWanted, session: AsyncSession) -> None:
    await lend_a_copy(_, session)


async def delete_a_row(_: BookWanted, session: AsyncSession) -> None:
    await session.delete(await session.get_one(Copy, "copy-1"))


async def say_it_in_sql(_: BookWanted, session: AsyncSession) -> None:
    await (await session.connection()).execute(text("UPDATE copy SET lent = 7"))


@pytest.mark.parametrize("deed", [add_a_row, change_a_row, delete_a_row, say_it_in_sql])
async def test_writes_before_a_refusal_are_rolled_back_alone(
    branch: Branch, database: Database, counter: Counter, deed: Act
) -> None:
    async def write_and_refuse(event: BookWanted, session: AsyncSession) -> Event:
        await deed(event, session)
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts |= {"loan-1": lend_a_copy, "loan-2": write_and_refuse}
    await branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-3"]
    assert await lent(database) == 1
    assert await states(database, "loan-2") == ["failed"]


async def test_an_earlier_steps_row_survives_a_refusal(branch: Branch, database: Database, counter: Counter) -> None:
    async def refuse(event: BookWanted, _: AsyncSession) -> Event:
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts |= {"loan-1": lend_a_copy, "loan-2": refuse}
    await branch.take(*wanted(1, 2, 3))

    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert await lent(database) == 1
    assert await slips(database) == ["loan-1", "loan-3"]


async def test_a_row_refused_at_flush_fails_alone(branch: Branch, database: Database, counter: Counter) -> None:
    async def take_anothers_slip(_: BookWanted, session: AsyncSession) -> None:
        session.add(Slip(loan_id="loan-1"))

    counter.acts["loan-2"] = take_anothers_slip
    async with branch.open():
        await asyncio.gather(*(branch.batcher.deliver(wire(each)) for each in wanted(1, 2, 3)))

    assert await slips(database) == ["loan-1", "loan-3"]
    assert await states(database, "loan-2") == ["failed"]


async def test_contention_at_the_flush_causes_no_fallback(postgres: Database, counter: Counter) -> None:
    branch = await open_branch(postgres, counter)
    async with postgres.engine.begin() as connection:
        for statement in (CONTEND, "CREATE TRIGGER contend BEFORE INSERT ON slip EXECUTE FUNCTION contend()"):
            await connection.execute(text(statement))

    with pytest.raises(DBAPIError) as caught:
        await branch.take(*wanted(1, 2, 3))

    assert is_contention(caught.value)
    assert counter.calls == ["loan-1", "loan-2", "loan-3"]


#: A function that writes, and what calls it without saying so.
HIDDEN = """
CREATE FUNCTION write_it() RETURNS int LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO slip VALUES ('ghost'); RETURN 1; END $$;
CREATE FUNCTION count(what text) RETURNS int LANGUAGE sql AS $$ SELECT write_it() $$;
CREATE FUNCTION differ(one int, other int) RETURNS bool LANGUAGE sql AS $$ SELECT write_it() > 0 $$;
CREATE OPERATOR <~> (LEFTARG = int, RIGHTARG = int, FUNCTION = differ);
CREATE VIEW copies AS SELECT number, write_it() AS lent FROM copy;
"""
WRITTEN_AS_TEXT = [
    "SELECT write_it()",
    'SELECT "write_it"()',
    "SELECT write_it /* so far away */ ()",
    "SELECT write_it\n()",
    "SELECT public.count('x'::text)",
    "SELECT 1 <~> 2",
    "SELECT lent FROM copies",
    "WITH gone AS (INSERT INTO slip VALUES ('ghost') RETURNING 1) SELECT * FROM gone",
    "EXPLAIN ANALYZE SELECT write_it()",
    "SELECT 'ghost' AS loan_id INTO ghosts",
    "DO $$ BEGIN PERFORM write_it(); END $$",
]
CONSTRUCTED = [
    sa_select(func.write_it()),
    sa_select(Copy.number).where(func.write_it() == 1),
    sa_select(literal_column("write_it()")),
    sa_select(Copy.number).where(text("write_it() = 1")),
    sa_select(Copy.number).prefix_with("write_it(),"),
    sa_select(Copy.number).prefix_with("1 <~> 2,"),
    sa_select(Copy.number).where(literal_column("lent").op("<~>")(1)),
    sa_select(table("copies", column("lent"))),
    sa_select(Table("copies", MetaData(), Column("lent", Integer))),
    sa_select(insert(Slip).values(loan_id="ghost").returning(Slip.loan_id).cte()),
]


async def ghosts(database: Database) -> int:
    async with database.reading() as connection:
        found = await connection.scalar(text("SELECT count(*) FROM slip WHERE loan_id = 'ghost'"))
        return int(found or 0) + int(await connection.scalar(text("SELECT to_regclass('ghosts') IS NOT NULL")) or 0)


async def read_and_refuse(postgres: Database, counter: Counter, act: Act) -> None:
    branch = await open_branch(postgres, counter)
    async with postgres.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute(HIDDEN)

    async def write_and_refuse(event: BookWanted, session: AsyncSession) -> Event:
        await act(event, session)
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts["loan-2"] = write_and_refuse
    await branch.take(*wanted(1, 2, 3))

    assert await states(postgres, "loan-2") == ["failed"]
    assert await slips(postgres) == ["loan-1", "loan-3"]
    assert await ghosts(postgres) == 0


@pytest.mark.parametrize("sql", WRITTEN_AS_TEXT)
async def test_a_text_with_hidden_writes_is_undone(postgres: Database, counter: Counter, sql: str) -> None:
    async def act(_: BookWanted, session: AsyncSession) -> None:
        await session.exec(text(sql))  # type: ignore[call-overload]

    await read_and_refuse(postgres, counter, act)


@pytest.mark.parametrize("statement", CONSTRUCTED, ids=lambda each: " ".join(str(each).split()))
async def test_a_construct_with_hidden_writes_is_undone(postgres: Database, counter: Counter, statement: Any) -> None:
    async def act(_: BookWanted, session: AsyncSession) -> None:
        await session.exec(statement)

    await read_and_refuse(postgres, counter, act)


async def test_what_is_written_past_sqlalchemy_is_undone(postgres: Database, counter: Counter) -> None:
    async def act(_: BookWanted, session: AsyncSession) -> None:
        raw = await (await session.connection()).get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("INSERT INTO slip VALUES ('ghost')")

    await read_and_refuse(postgres, counter, act)


POLICY = """
ALTER TABLE copy ENABLE ROW LEVEL SECURITY;
ALTER TABLE copy FORCE ROW LEVEL SECURITY;
"""
OWN_TYPE = "CREATE TYPE part AS (one int); ALTER TABLE copy ADD COLUMN whole part"
OWN_OPERATOR = "CREATE OPERATOR <~> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4lt)"
CHILD = "CREATE TABLE rare () INHERITS (copy)"


@pytest.mark.parametrize("change", [POLICY, OWN_TYPE, OWN_OPERATOR, CHILD, "SELECT 1"])
async def test_a_table_without_triggers_is_plain(postgres: Database, change: str) -> None:
    await postgres.create_tables(tables)
    async with postgres.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute(change)
        compiled = sa_select(Copy.number).compile(dialect=connection.dialect)
        reads = PlainReads()

        assert await reads.are_all([compiled], connection) is (change == "SELECT 1")
        assert await reads.are_all([compiled, None], connection) is False


async def test_plain_reads_before_a_refusal_cost_no_savepoint(
    branch: Branch, database: Database, counter: Counter
) -> None:
    async def read_much(event: BookWanted, session: AsyncSession) -> Event:
        await session.get_one(Copy, "copy-1", with_for_update=True)
        conditions = (col(Copy.lent) > -1, col(Copy.number).in_(["copy-1"]), ~(col(Copy.lent) == 7))
        found = (await session.exec(select(Copy).where(*conditions).order_by(col(Copy.lent).desc()).limit(1))).all()
        exists = sa_select(Copy.number).where(sa_select(Copy).where(Copy.lent == 0).exists())
        assert found
        assert (await session.exec(exists)).all()  # type: ignore[call-overload]
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts |= {"loan-1": read_much, "loan-2": read_much}
    with statements(database) as said:
        await branch.take(*wanted(1, 2, 3))
        looked_up = [each for each in said if "pg_class" in each]
        await branch.take(*wanted(4))

    assert counter.calls == ["loan-1", "loan-2", "loan-3", "loan-4"]
    assert not [each for each in said if "SAVEPOINT" in each]
    assert len(looked_up) == (0 if database.is_sqlite else 1)
