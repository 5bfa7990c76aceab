"""A refusing step's statement that may write, however hidden, is rolled back; plain reads need no savepoint."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, column, func, insert, literal_column, table, text
from sqlalchemy import select as sa_select
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import states
from tests.example_sagas.loans import BookWanted, LoanRefused
from tests.unit.runtime.copies import (
    Act,
    Copy,
    Counter,
    Slip,
    open_copies_branch,
    slips,
    statements,
    tables,
    wanted,
)
from toolkit import Event
from toolkit.persistence.database import Database
from toolkit.persistence.plain_reads import PlainReads

#: A function that writes, and functions, an operator and a view that call it unseen. A sequence shows that a statement
#: wrote: no rollback takes its numbers back.
HIDDEN = """
CREATE SEQUENCE written;
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM nextval('written'); RETURN NEW; END $$;
CREATE TRIGGER counts BEFORE INSERT ON slip FOR EACH ROW WHEN (NEW.loan_id = 'ghost') EXECUTE FUNCTION count_it();
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
    "SELECT nextval('written') AS loan_id INTO ghosts",
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


async def has_written(database: Database) -> bool:
    """Whether a ghost was ever written, even if that was rolled back."""
    async with database.reading() as connection:
        return bool(await connection.scalar(text("SELECT is_called FROM written")))


async def ghosts(database: Database) -> int:
    async with database.reading() as connection:
        found = await connection.scalar(text("SELECT count(*) FROM slip WHERE loan_id = 'ghost'"))
        return int(found or 0) + int(await connection.scalar(text("SELECT to_regclass('ghosts') IS NOT NULL")) or 0)


async def read_and_refuse(postgres: Database, counter: Counter, act: Act) -> None:
    branch = await open_copies_branch(postgres, counter)
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
    assert await has_written(postgres)
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
    copies_branch: Branch, database: Database, counter: Counter
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
    with statements(database) as executed:
        await copies_branch.take(*wanted(1, 2, 3))
        looked_up = [each for each in executed if "pg_class" in each]
        await copies_branch.take(*wanted(4))

    assert counter.calls == ["loan-1", "loan-2", "loan-3", "loan-4"]
    assert not [each for each in executed if "SAVEPOINT" in each]
    assert len(looked_up) == (0 if database.is_sqlite else 1)
