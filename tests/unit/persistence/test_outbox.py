"""The outbox's statements, on both databases."""

from __future__ import annotations

from datetime import timedelta

from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import add_to_outbox, rows_left
from tests.example_sagas.loans import NOON
from toolkit.persistence import outbox
from toolkit.persistence.batch_write import BatchWrite, write_batch
from toolkit.persistence.database import Database

LATER = NOON + timedelta(seconds=5)


async def claim(database: Database, *, now=NOON, most: int = 10) -> list[outbox.OutboxRow]:
    async with database.transaction() as session:
        return await outbox.claim(await session.connection(), now=now, until=now + timedelta(seconds=5), most=most)


async def count(database: Database) -> int:
    async with database.reading() as connection:
        return await outbox.count(connection)


async def test_a_claimed_row_equals_the_inserted_row(database: Database) -> None:
    row = outbox_row("loan-1", due_at=NOON, destination="saga.library", optional=True, tries=3)
    await add_to_outbox(database, row)

    claimed = await claim(database)

    assert [(each.id, each.message, each.destination, each.optional, each.tries) for each in claimed] == [
        (row.id, row.message, "saga.library", True, 3)
    ]
    assert claimed[0].due_at == LATER


async def test_only_due_rows_are_claimed_oldest_first(database: Database) -> None:
    moments = {"loan-1": 0, "loan-2": -2, "loan-3": 1, "loan-4": -1}
    await add_to_outbox(
        database, *(outbox_row(loan, due_at=NOON + timedelta(seconds=at)) for loan, at in moments.items())
    )

    claimed = await claim(database, most=2)

    assert {each.message.correlation_id for each in claimed} == {"loan-2", "loan-4"}


async def test_a_claimed_row_rests_until_its_lease_ends(database: Database) -> None:
    await add_to_outbox(database, outbox_row("loan-1", due_at=NOON))
    await claim(database)

    during = await claim(database, now=LATER - timedelta(milliseconds=1))
    after = await claim(database, now=LATER)

    assert during == []
    assert len(after) == 1


async def test_a_row_being_claimed_is_passed_over(postgres: Database) -> None:
    await add_to_outbox(postgres, outbox_row("loan-1", due_at=NOON), outbox_row("loan-2", due_at=LATER))

    async with postgres.transaction() as session:
        first = await outbox.claim(await session.connection(), now=NOON, until=LATER, most=1)
        second = await claim(postgres, now=LATER, most=5)

    assert [row.message.correlation_id for row in first] == ["loan-1"]
    assert [row.message.correlation_id for row in second] == ["loan-2"]


async def test_confirmed_rows_are_deleted_and_others_stay(database: Database) -> None:
    rows = [outbox_row(f"loan-{number}", due_at=NOON) for number in range(3)]
    await add_to_outbox(database, *rows)

    async with database.transaction() as session:
        sent = [rows[0].id, rows[2].id, "no such row"]
        await write_batch(await session.connection(), BatchWrite(sent=sent))

    assert await rows_left(database) == ["loan-1"]


async def test_a_row_put_back_counts_the_try(database: Database) -> None:
    row = outbox_row("loan-1", due_at=NOON)
    await add_to_outbox(database, row)

    async with database.transaction() as session:
        await outbox.put_back(await session.connection(), row.id, until=LATER)

    assert await claim(database, now=LATER - timedelta(milliseconds=1)) == []
    assert [each.tries for each in await claim(database, now=LATER)] == [1]


async def test_the_count_includes_rows_not_due(database: Database) -> None:
    empty = await count(database)
    await add_to_outbox(database)
    await add_to_outbox(database, outbox_row("loan-1", due_at=NOON), outbox_row("loan-2", due_at=LATER))

    assert (empty, await count(database)) == (0, 2)


async def test_a_rolled_back_row_never_existed(database: Database) -> None:
    try:
        async with database.transaction() as session:
            await outbox.add(await session.connection(), [outbox_row("loan-1", due_at=NOON)])
            raise RuntimeError("the step failed")
    except RuntimeError:
        pass

    assert await count(database) == 0
