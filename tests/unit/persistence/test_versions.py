"""A stored event keeps its version: it is sent, and compensated, in the version that it was emitted in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.example_sagas import loan_rows, loans
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import states
from tests.example_sagas.loans import NOON, BookWanted, Clerk, library
from tests.unit.persistence.faults import change
from toolkit import Event, Participant, SagaId, Service, Settings
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations import sagas
from toolkit.persistence import dead_letter_queries
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import Selection
from toolkit.runtime.watchdog import Watchdog
from toolkit.testing import ManualClock

BY = Operator(name="ada", reason="it was lost")


def release(*, version: int = 2, external: bool = False, name: str = "BookLent") -> Service:
    """Return the library of another release: its event has another version, or another name."""
    participant = Participant("library", saga=loans.loan_saga, retry=loans.QUICK)
    fields = {"loan_id": SagaId, "shelf": int, "days": int}
    emitted = type(
        name, (Event,), {"__annotations__": fields, "shelf": 1, "days": 14}, owner="library", version=version
    )

    async def lend_book(event): ...

    async def take_back(event, original):
        undone.append(original)
        return loans.BookTakenBack(loan_id=event.loan_id)

    lend_book.__annotations__ = {"event": BookWanted, "return": emitted | loans.LoanRefused}
    take_back.__annotations__ = {"event": loans.CardRefused, "original": emitted | None, "return": loans.BookTakenBack}
    undone: list[Event] = []
    participant.step(external=external)(lend_book)
    participant.compensation(of=lend_book)(take_back)
    return Service(name="library", participants=[participant], tables=loans.tables)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def before(database: Database, clerk: Clerk, clock: ManualClock) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=clock)


@pytest.mark.parametrize("way", ["nudge of the watchdog", "nudge", "replay"])
async def test_a_resent_event_keeps_its_emitted_version(
    before: Branch, database: Database, clock: ManualClock, way: str
) -> None:
    await before.take(BookWanted(loan_id="loan-1"))
    await before.relay.drain()
    after = Branch(release(), database, resources={}, clock=clock)

    clock.advance(timedelta(minutes=30))
    if way == "nudge of the watchdog":
        await Watchdog(release(), Settings(), database=database, relay=after.relay, clock=clock).sweep()
    elif way == "nudge":
        await sagas.nudge(database, release(), "loan-1", BY, now=clock.now())
    else:
        await sagas.replay(database, release(), "loan-1", BY, now=clock.now())
    await after.relay._due.claim()
    await after.relay.drain()

    (first,) = before.publisher.taken
    (again,) = after.publisher.taken
    assert (again.message_id, again.body) == (first.message_id, first.body)
    assert (first.headers["event-version"], again.headers["event-version"]) == (1, 1)


async def test_a_new_event_has_the_declared_version(before: Branch, database: Database) -> None:
    await before.take(BookWanted(loan_id="loan-1"))

    async with database.reading() as connection:
        (found,) = (await connection.exec_driver_sql("SELECT emitted_type, emitted_version FROM saga_log")).all()
    assert tuple(found) == ("BookLent", 1)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    ("today", "fault"),
    [
        ({"version": 2}, "lend_book emitted BookLent in version 1, but this release declares BookLent in version 2"),
        (
            {"version": 1, "name": "BookGiven"},
            "emitted BookLent in version 1, but this release declares BookGiven",
        ),
    ],
)
async def test_an_original_of_another_version_is_never_read(
    before: Branch, database: Database, clock: ManualClock, external: bool, today: dict[str, Any], fault: str
) -> None:
    await before.take(BookWanted(loan_id="loan-1"))
    after = Branch(release(external=external, **today), database, resources={}, clock=clock)

    for _ in range(2):
        await after.handle(loans.CardRefused(loan_id="loan-1", reason="expired"))

    (dead_letter,) = await loan_rows.dead_letters_of(database)
    assert fault in dead_letter.error
    assert "redrive the dead letter with a release" in dead_letter.error
    assert (await states(database, "loan-1"))[0] == "completed"
    assert "compensated" not in await states(database, "loan-1")


async def test_a_log_without_versions_counts_as_current(before: Branch, database: Database, clock: ManualClock) -> None:
    await before.take(BookWanted(loan_id="loan-1"))
    await change(database, "UPDATE saga_log SET emitted_version = NULL")
    after = Branch(release(), database, resources={}, clock=clock)

    await after.handle(loans.CardRefused(loan_id="loan-1", reason="expired"))

    assert await states(database, "loan-1") == ["completed", "compensated"]


async def test_a_redriven_dead_letter_keeps_its_version(before: Branch, database: Database, clock: ManualClock) -> None:
    await before.take(BookWanted(loan_id="loan-1"))
    after = Branch(release(), database, resources={}, clock=clock)
    for _ in range(2):
        await after.handle(loans.CardRefused(loan_id="loan-1", reason="expired"))

    await dead_letter_operations.redrive(database, Selection(), BY, queue="saga.library", now=clock.now())

    async with database.reading() as connection:
        assert await dead_letter_queries.count(connection) == 0
        sql = "SELECT headers FROM saga_outbox WHERE event_type = 'CardRefused' ORDER BY id DESC"
        headers = (await connection.exec_driver_sql(sql)).scalars().all()
    assert all('"event-version": 1' in each for each in headers)
