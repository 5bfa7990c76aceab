"""Sagas are found by their ids and their events' ids, and listed the latest moved first, page by page."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.example_sagas.loans import NOON
from toolkit.declaration.events import SagaState
from toolkit.ids import derived_id
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import attention, search
from toolkit.operations.attention import Attention
from toolkit.operations.search import Search
from toolkit.persistence import dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.overdue_steps import overdue
from toolkit.persistence.saga_log import Entry, append

STARTED, PENDING, COMPLETED = SagaState.STARTED, SagaState.PENDING, SagaState.COMPLETED


def event_id(at: datetime, number: int = 1) -> str:
    return str(uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | number))


def entry(loan: str, state: SagaState = PENDING, **facts: Any) -> Entry:
    return Entry(**{
        "service": "library", "saga_id": loan, "saga_type": "loan", "step": "lend_book", "position": None,
        "from_state": None, "to_state": "ignored", "saga_state": state, "event_id": None, "event_type": None,
        "at": NOON, **facts,
    })  # fmt: skip


async def write(database: Database, *entries: Entry) -> None:
    async with database.transaction() as session:
        await append(await session.connection(), entries)


async def page(
    database: Database, limit: int = 100, cursor: str | None = None, now: datetime = NOON, **which: Any
) -> search.Found:
    row = None if cursor is None else int(cursor)
    async with database.reading() as connection:
        return await search.search(connection, Search(**which), now=now, limit=limit, cursor=row)


async def found(database: Database, **query: Any) -> list[str]:
    rows, following = await page(database, **query)
    assert following is None
    return [row.saga_id for row in rows]


async def pages(database: Database, **query: Any) -> list[list[str]]:
    rows, following = await page(database, **query)
    found = [[row.saga_id for row in rows]]
    while following is not None:
        rows, following = await page(database, cursor=following, **query)
        found.append([row.saga_id for row in rows])
    return found


async def test_a_saga_is_shown_by_its_last_entry(database: Database):
    later = NOON + timedelta(seconds=5)
    await write(database, entry("loan-1", STARTED), entry("loan-1", COMPLETED, step="take_back", at=later))

    rows, _ = await page(database)

    assert [row.as_row() for row in rows] == [
        {
            "saga_id": "loan-1", "saga_type": "loan", "state": "Completed", "step": "take_back", "started_at": NOON,
            "moved_at": later, "at": later, "attention": (),
        }
    ]  # fmt: skip


async def test_pages_list_each_saga_once_latest_first(database: Database):
    await write(database, *(entry(f"loan-{number % 10}") for number in range(25)))

    assert await pages(database, limit=4) == [
        ["loan-4", "loan-3", "loan-2", "loan-1"],
        ["loan-0", "loan-9", "loan-8", "loan-7"],
        ["loan-6", "loan-5"],
    ]


async def test_sagas_are_filtered_by_their_last_entry(database: Database):
    await write(
        database,
        entry("loan-1", PENDING), entry("loan-2", PENDING), entry("loan-2", COMPLETED),
        entry("loan-3", PENDING, step="take_back"), entry("return-1", PENDING, saga_type="return"),
    )  # fmt: skip

    assert await found(database, state=PENDING) == ["return-1", "loan-3", "loan-1"]
    assert await found(database, state=PENDING, type="loan", step="lend_book") == ["loan-1"]
    assert await found(database, step="nowhere") == []


async def test_a_sagas_end_moves_no_step(database: Database):
    moved, ended = NOON + timedelta(seconds=5), NOON + timedelta(seconds=9)
    await write(
        database,
        entry("loan-1", STARTED, step="lend_book", event_type="BookWanted"),
        entry("loan-1", PENDING, step="take_back", event_type="BookLent", at=moved),
        entry("loan-1", COMPLETED, step="lend_book", event_type="SagaEnded", at=ended),
    )

    rows, _ = await page(database)

    assert [(row.step, row.moved_at, row.at) for row in rows] == [("take_back", moved, ended)]
    assert await found(database, step="take_back", state=COMPLETED) == ["loan-1"]
    assert await found(database, step="lend_book") == []


async def test_sagas_are_filtered_by_age_despite_clock_skew(database: Database):
    ages = (70, 61, 59, 62, 3, 58, 0)
    await write(
        database, *(entry(f"loan-{number}", at=NOON - timedelta(minutes=age)) for number, age in enumerate(ages))
    )

    assert await found(database, older_than=timedelta(hours=1)) == ["loan-3", "loan-1", "loan-0"]
    assert await found(database, older_than=timedelta(hours=2)) == []
    assert await pages(database, older_than=timedelta(hours=1), limit=2) == [["loan-3", "loan-1"], ["loan-0"]]


@pytest.mark.parametrize("few", [0, 1_000])
async def test_sagas_that_need_an_operator_are_found(database: Database, few: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "_FEW", few)
    await write(database, *(entry(f"loan-{number}") for number in range(5)))
    await need(database, late=["loan-1", "loan-3"], dead=["loan-3", "loan-4", "loan-unknown"])

    everything, _ = await page(database)

    assert {row.saga_id: row.attention for row in everything if row.attention} == {
        "loan-1": ("overdue",), "loan-3": ("overdue", "dead_letter"), "loan-4": ("dead_letter",),
    }  # fmt: skip
    assert await found(database, attention=Attention.OVERDUE) == ["loan-3", "loan-1"]
    assert await pages(database, attention=Attention.DEAD_LETTER, limit=1) == [["loan-4"], ["loan-3"], []]
    assert await found(database, attention=Attention.OVERDUE, state=COMPLETED) == []


async def test_a_saga_is_found_by_its_whole_id(database: Database):
    await write(database, entry("loan-1"), entry("loan-12"))

    assert await found(database, q="loan-1") == ["loan-1"]
    assert await found(database, q="loan") == []
    assert await found(database, q="loan-1", state=COMPLETED) == []


@pytest.mark.parametrize("column", ["event_id", "emitted_id"])
@pytest.mark.parametrize("delay", [timedelta(seconds=-30), timedelta(0), timedelta(seconds=40)])
async def test_a_saga_is_found_by_its_events_ids(database: Database, column: str, delay: timedelta):
    wanted = event_id(NOON)
    await write(
        database,
        *(entry(f"loan-{number}", **{column: event_id(NOON, number + 2)}) for number in range(20)),
        entry("loan-sought", **{column: wanted}, at=NOON + delay),
        entry("loan-sought", COMPLETED, at=NOON + delay),
    )

    rows, _ = await page(database, q=wanted)

    assert [(row.saga_id, row.state) for row in rows] == [("loan-sought", "Completed")]


async def test_a_late_event_is_found_on_later_pages(database: Database):
    wanted = event_id(NOON)
    await write(database, entry("loan-sought", event_id=wanted, at=NOON + timedelta(hours=9)), entry("loan-1"))

    assert await pages(database, q=wanted) == [[], ["loan-sought"]]


@pytest.mark.parametrize(
    "foreign", [derived_id("loan", "loan-1", "BookWanted"), str(uuid.UUID(int=1)), "message 17", "ÿ" * 80]
)
async def test_a_timeless_id_is_searched_from_the_end(database: Database, foreign: str):
    await write(database, entry("loan-1", event_id=foreign), *(entry(f"loan-{number}") for number in range(2, 9)))

    assert await found(database, q=foreign) == ["loan-1"]


@pytest.mark.parametrize(
    "invalid", ["", "\0", "a\nb", "ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000"]
)
async def test_an_invalid_id_finds_no_saga(database: Database, invalid: str):
    await write(database, entry("loan-1"))

    assert not any(await pages(database, q=invalid))


async def test_a_slow_page_is_short_with_a_cursor(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search, "_PATIENCE", -1)
    monkeypatch.setattr(search, "_FIRST_WINDOW", 10)
    monkeypatch.setattr(search, "_WINDOW", 10)
    await write(database, entry("loan-rare", COMPLETED), *(entry(f"loan-{number}") for number in range(35)))

    by_state = await pages(database, state=COMPLETED)
    by_event = await pages(database, q="no such event")

    assert len(by_state) > 2
    assert [loan for each in by_state for loan in each] == ["loan-rare"]
    assert len(by_event) > 2


async def test_two_types_under_one_id_are_two_sagas(database: Database):
    gift = {"saga_type": "gift", "step": "wrap"}
    await write(database, entry("A-1", event_id="of the loan"), entry("A-1", COMPLETED, event_id="its own", **gift))
    await need(database, late=["A-1"], dead=[])

    rows, _ = await page(database)
    by_id, _ = await page(database, q="A-1")

    assert rows == by_id
    shown = [(row.saga_type, row.state, row.step, row.attention) for row in rows]
    assert shown == [("gift", "Completed", "wrap", ()), ("loan", "Pending", "lend_book", ("overdue",))]
    assert [row.saga_type for row in (await page(database, q="its own"))[0]] == ["gift"]
    assert [row.saga_type for row in (await page(database, q="A-1", type="loan"))[0]] == ["loan"]
    assert [row.saga_type for row in (await page(database, attention=Attention.OVERDUE))[0]] == ["loan"]


async def test_an_untyped_dead_letter_matches_each_saga(database: Database, monkeypatch: pytest.MonkeyPatch):
    await write(database, entry("A-1"), entry("A-1", saga_type="gift"))
    await need(database, late=[], dead=["A-1"])

    rows, _ = await page(database)
    monkeypatch.setattr(attention, "_FEW", 0)

    assert [row.attention for row in rows] == [("dead_letter",), ("dead_letter",)]
    assert len((await page(database, attention=Attention.DEAD_LETTER))[0]) == 2


async def test_an_empty_log_has_no_sagas(database: Database):
    assert await found(database) == await found(database, q="loan-1") == []
    assert await found(database, older_than=timedelta(hours=1)) == await found(database, state=PENDING) == []


async def need(database: Database, *, late: list[str], dead: list[str]) -> None:
    """Insert the `late` sagas as overdue, and dead letters of the `dead` ones."""
    async with database.transaction() as session:
        connection = await session.connection()
        for loan in late:
            step = {
                "saga_id": loan, "step": "lend_book", "saga_type": "loan", "position": 1, "state": "completed",
                "saga_state": "Pending", "since": NOON, "next_at": NOON, "nudges": 0, "aborted": 0,
            }  # fmt: skip
            await connection.execute(overdue.insert().values(step))
        stored = [
            DeadLetter(id=f"dead-{loan}", service="library", reason="schema", error="", at=NOON,
                       message=WireMessage(loan.encode(), "library.BookLent", correlation_id=loan))
            for loan in dead
        ]  # fmt: skip
        await dead_letters.add(connection, stored)
