"""What a batch writes by one statement equals what three statements write, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.eventually import eventually
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import add_to_outbox, log_of, rows_left
from tests.example_sagas.loans import NOON
from tests.unit.persistence.saga_entries import append, entry
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.errors import PositionTakenError
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import outbox, saga_log
from toolkit.persistence.batch_write import BatchWrite, write_batch
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_of_data
from toolkit.persistence.driver_errors import causes_of
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_ends import ends_of
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note, StepState

#: A moment whose microseconds and zone are easily lost: the zone of Amsterdam before 1937.
ODD = datetime(1930, 1, 2, 3, 4, 5, 123456, tzinfo=timezone(timedelta(minutes=19, seconds=32)))
BODY = '{"title": "Tōkyō \\u0000 \\"Ж\\" \U0001f4d6"}'
FULL = entry(
    "loan-1",
    StepState.COMPLETED,
    saga_state=SagaState.PENDING,
    from_state="executing",
    emitted_id="event-2",
    emitted_type="BookLent",
    emitted_version=2,
    emitted_body=BODY,
    attempt=3,
    error="quote ' and \\ and \t tab",
    deadline=ODD,
    traceparent="00-1-2-01",
    started_at=NOON.astimezone(timezone(timedelta(hours=9))),
    at=datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
)
ENTRIES = [FULL, entry("loan-2", Note.IGNORED, None), entry("loan-3", event_id=None, event_type=None)]
LATE = OutboxRow(
    id="late",
    message=WireMessage(
        BODY.encode(),
        routing_key="library.BookLent",
        message_id="event-2",
        type="BookLent",
        timestamp=ODD,
        headers={"saga-type": "loan", "attempt": 2, "note": "Ж"},
    ),
    due_at=ODD,
    destination="saga.library",
    optional=True,
    tries=2,
)
ROWS = [outbox_row("loan-1", due_at=NOON), LATE]


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.transaction() as session:
        yield await session.connection()


async def stored(database: Database, table: str) -> list[tuple[object, ...]]:
    """Return a table's rows as the database stores them, apart from the log's own ids."""
    columns = ", ".join(saga_log.ENTRY_FIELDS) if table == "saga_log" else "*"
    async with database.reading() as connection:
        rows = await connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY id"))
        return [tuple(row) for row in rows]


async def emptied(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("DELETE FROM saga_log"))
        await connection.execute(text("DELETE FROM saga_outbox"))


async def test_one_write_leaves_the_same_rows(database: Database) -> None:
    async with writing(database) as connection:
        await saga_log.append(connection, ENTRIES)
        await outbox.add(connection, ROWS)
    expected = await stored(database, "saga_log"), await stored(database, "saga_outbox")
    await emptied(database)

    async with writing(database) as connection:
        await write_batch(connection, BatchWrite(entries=ENTRIES, rows=ROWS))

    assert (await stored(database, "saga_log"), await stored(database, "saga_outbox")) == expected
    assert [len(rows) for rows in expected] == [3, 2]


async def test_entries_are_appended_in_their_order(database: Database) -> None:
    async with writing(database) as connection:
        await write_batch(connection, BatchWrite(entries=[entry(position=number) for number in range(1, 200)]))

    assert [each.position for each in await log_of(database, "loan-1")] == list(range(1, 200))


async def test_sent_rows_go_and_existing_rows_stay(database: Database) -> None:
    rows = [outbox_row(f"loan-{number}", due_at=NOON) for number in range(3)]
    await add_to_outbox(database, *rows)

    async with writing(database) as connection:
        again = replace(rows[2], tries=9)
        await write_batch(connection, BatchWrite(rows=[again, LATE], sent=[rows[0].id, rows[1].id, "no such row"]))

    assert await rows_left(database) == ["", "loan-2"]
    async with writing(database) as connection:
        claimed = await outbox.claim(connection, now=NOON, until=NOON, most=10)
    assert {row.id: row.tries for row in claimed} == {"late": 2, rows[2].id: 0}


@pytest.mark.parametrize(
    "parts",
    [{}, {"entries": [FULL]}, {"rows": [LATE]}, {"sent": ["row"]}, {"entries": [FULL], "sent": ["row"]}],
    ids=lambda parts: "+".join(parts) or "nothing",
)
async def test_each_part_is_written_without_others(database: Database, parts: dict) -> None:
    async with writing(database) as connection:
        assert await write_batch(connection, BatchWrite(**parts))

    assert len(await stored(database, "saga_log")) == len(parts.get("entries", ()))
    assert len(await stored(database, "saga_outbox")) == len(parts.get("rows", ()))


async def test_a_taken_position_rejects_the_whole_batch(database: Database) -> None:
    await append(database, entry(to="fenced"))

    with pytest.raises(PositionTakenError, match="one of 2 positions"):
        async with writing(database) as connection:
            await write_batch(connection, BatchWrite(entries=[entry("loan-2"), entry()], rows=ROWS))

    assert [each.to_state for each in await log_of(database, "loan-1")] == ["fenced"]
    assert await log_of(database, "loan-2") == []
    assert await rows_left(database) == []


async def test_another_constraint_is_no_taken_position(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX one_entry_a_service ON saga_log (service)"))
    await append(database, entry("loan-1"))

    for wrong in (entry("loan-2"), entry("loan-2", service=None)):
        with pytest.raises(IntegrityError):
            async with writing(database) as connection:
                await write_batch(connection, BatchWrite(entries=[wrong]))


@pytest.mark.parametrize(
    ("known", "is_ended"),
    [
        (entry(saga_state=SagaState.PENDING), False),
        (entry(saga_state=SagaState.COMPLETED), True),
        (entry(to=Note.ENDED, position=None, saga_state=SagaState.FAILED), True),
        (entry("loan-2", saga_state=SagaState.FAILED), False),
        (entry(saga_type="gift", saga_state=SagaState.FAILED), False),
    ],
)
async def test_nothing_is_written_once_a_saga_ended(database: Database, known: Entry, is_ended: bool) -> None:
    rows = [outbox_row("loan-2", due_at=NOON)]
    await append(database, known, entry("loan-3"))
    await add_to_outbox(database, *rows)
    batch = BatchWrite(
        # What the batch itself writes is no end that the log showed before.
        entries=[entry(step="fetch_book", saga_state=SagaState.COMPLETED)],
        rows=[LATE],
        sent=[rows[0].id],
        ends=ends_of([("the end", SagaEnded(saga_type="loan", completed=("loan-3",)))], at=NOON),
        unread=[("loan", "loan-9"), ("loan", "loan-1")],
    )

    async with writing(database) as connection:
        is_written = await write_batch(connection, batch)
        is_open = await write_batch(connection, BatchWrite(unread=[("gift", "loan-9"), ("loan", "loan-9")]))

    assert (is_written, is_open) == (not is_ended, True)
    assert await rows_left(database) == (["loan-2"] if is_ended else [""])
    assert await states_of(database, "loan-3") == [["completed"] if is_ended else ["completed", "confirmed"]]
    assert ("fetch_book" in {each.step for each in await log_of(database, "loan-1")}) is is_written


async def test_a_body_that_is_no_text_is_written(database: Database) -> None:
    message = replace(LATE.message, body=b"\xff\x00", timestamp=NOON)

    async with writing(database) as connection:
        await write_batch(connection, BatchWrite(entries=[FULL], rows=[replace(LATE, message=message)], sent=["row"]))

    async with writing(database) as connection:
        claimed = await outbox.claim(connection, now=NOON, until=NOON, most=10)
    assert [row.message.body for row in claimed] == [b"\xff\x00"]
    assert len(await log_of(database, "loan-1")) == 1


@pytest.mark.parametrize("wrong", ["\0", "\ud800"])
async def test_text_that_cannot_be_stored_is_refused(postgres: Database, wrong: str) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with writing(postgres) as connection:
            await write_batch(connection, BatchWrite(entries=[entry(error=wrong)]))

    assert is_of_data(caught.value)


async def test_an_error_shows_nothing_of_the_json(postgres: Database) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with writing(postgres) as connection:
            await write_batch(connection, BatchWrite(entries=[entry(error="secret \0")]))

    shown = [f"{error} {error!r} {vars(error)}" for error in causes_of(caught.value)]
    assert len(shown) > 1
    assert "secret" not in "".join(shown)


async def states_of(database: Database, *loans: str) -> list[list[str]]:
    return [[each.to_state for each in await log_of(database, loan)] for loan in loans]


async def test_ends_are_written_with_other_sagas_entries(database: Database) -> None:
    await append(database, entry("loan-2"), entry("loan-3"), entry("loan-4", to="compensated"))
    ended = SagaEnded(saga_type="loan", completed=("loan-2", "loan-4"), failed=("loan-3",))

    async with writing(database) as connection:
        ends = ends_of([("the end", ended)], at=NOON)
        await write_batch(connection, BatchWrite(entries=[entry()], rows=ROWS, ends=ends))

    assert await states_of(database, "loan-1", "loan-2", "loan-3", "loan-4") == [
        ["completed"],
        ["completed", "confirmed"],
        ["completed", "ended"],
        ["compensated", "ended"],
    ]


async def test_a_saga_ends_after_its_own_entry(database: Database) -> None:
    ended = SagaEnded(saga_type="loan", completed=("loan-1",))

    async with writing(database) as connection:
        ends = ends_of([("the end", ended)], at=NOON)
        await write_batch(connection, BatchWrite(entries=[entry()], ends=ends))

    assert await states_of(database, "loan-1") == [["completed", "confirmed"]]


async def test_an_end_that_comes_repeatedly_is_written_once(database: Database) -> None:
    await append(database, entry(), entry("loan-2"), entry(saga_type="gift"))
    both = SagaEnded(saga_type="loan", completed=("loan-1",), failed=("loan-2",))
    messages = [("end-1", both), ("end-2", both), ("end-3", SagaEnded(saga_type="gift", completed=("loan-1",)))]

    async with writing(database) as connection:
        await write_batch(connection, BatchWrite(ends=ends_of(messages, at=NOON)))

    written = [(each.saga_type, each.to_state, each.event_id) for each in await log_of(database, "loan-1")]
    assert sorted(written[2:]) == [("gift", "confirmed", "end-3"), ("loan", "confirmed", "end-1")]
    assert await states_of(database, "loan-2") == [["completed", "ended"]]


async def waits_for_a_lock(database: Database) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.reading() as connection:
        return bool(await connection.scalar(text(waiting)))


async def test_an_end_whose_position_is_taken_is_a_lost_race(postgres: Database) -> None:
    await append(postgres, entry())
    ends = ends_of([("the end", SagaEnded(saga_type="loan", completed=("loan-1",)))], at=NOON)

    async def lose() -> None:
        async with writing(postgres) as connection:
            await write_batch(connection, BatchWrite(ends=ends))

    async with writing(postgres) as connection:
        await write_batch(connection, BatchWrite(ends=ends))
        losing = asyncio.create_task(lose())
        await eventually(lambda: waits_for_a_lock(postgres), what="the other transaction at the taken position")

    with pytest.raises(PositionTakenError):
        await losing
    assert await states_of(postgres, "loan-1") == [["completed", "confirmed"]]
