"""A step that is renamed while its sagas run is detected at startup."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from tests.example_sagas import loan_messages, loans
from tests.example_sagas.conference import CatererRefused
from tests.example_sagas.library_branch import Branch, RecordingPublisher
from tests.example_sagas.loans import NOON, BookWanted, Clerk, library
from tests.example_sagas.travel import Script
from tests.unit.persistence.faults import change
from tests.unit.runtime import holidays
from toolkit import Participant, Service, Settings
from toolkit.clock import SystemClock
from toolkit.declaration.events import SagaEnded
from toolkit.errors import UndeclaredStepsError
from toolkit.ids import new_id
from toolkit.persistence import known_steps, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.testing import ManualClock


def renamed(name: str = "hand_out_book") -> Service:
    """Return the library of a release that renamed its step."""
    participant = Participant("library", saga=loans.loan_saga)

    async def step(event: BookWanted) -> loans.BookLent:
        return loans.BookLent(loan_id=event.loan_id)

    async def take_back(event: loans.CardRefused) -> loans.BookTakenBack:
        return loans.BookTakenBack(loan_id=event.loan_id)

    step.__name__ = name
    participant.compensation(of=participant.step()(step))(take_back)
    return Service(name="library", participants=[participant], tables=loans.tables)


async def start(service: Service, database: Database, **settings: bool) -> list[dict]:
    """Prepare a service as its start does, and return the logged warnings."""
    host = ServiceRuntime(
        service, Settings(database_url=database.url, **settings), RecordingPublisher(), clock=SystemClock()
    )
    try:
        with capture_logs() as logs:
            await host.prepare()
    finally:
        await host.stop()
    return [each for each in logs if each["log_level"] == "warning"]


@pytest.fixture
async def branch(database: Database, clerk: Clerk) -> Branch:
    await start(library(clerk), database)
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON))


async def end(branch: Branch, *loan_ids: str) -> None:
    await branch.executor.execute([loan_messages.message_of(SagaEnded(saga_type="loan", completed=loan_ids))])


async def test_unfinished_sagas_of_an_undeclared_step_stop_startup(branch: Branch, database: Database) -> None:
    await branch.take(*(BookWanted(loan_id=f"loan-{each}") for each in range(3)))
    await end(branch, "loan-1")

    with pytest.raises(UndeclaredStepsError) as caught:
        await start(renamed(), database)

    assert "loan/lend_book (2 unfinished)" in str(caught.value)
    assert "Declare them under their old names" in str(caught.value)
    assert "SAGA_ALLOW_UNDECLARED_STEPS=true" in str(caught.value)


async def test_steps_never_recorded_are_learned_from_the_log(branch: Branch, database: Database) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await change(database, "DELETE FROM saga_known_steps")

    with pytest.raises(UndeclaredStepsError, match=r"loan/lend_book \(1 unfinished\)"):
        await start(renamed(), database)
    with pytest.raises(UndeclaredStepsError):  # on every start
        await start(renamed(), database)


async def test_a_long_log_is_searched_in_ranges(
    branch: Branch, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_steps, "_RANGE", 2)
    monkeypatch.setattr(known_steps, "MOST_COUNTED", 5)
    await branch.take(*(BookWanted(loan_id=f"loan-{each}") for each in range(9)))
    await change(database, "DELETE FROM saga_known_steps", "DELETE FROM saga_log WHERE saga_id = 'loan-0'")

    with pytest.raises(UndeclaredStepsError, match=r"loan/lend_book \(5 or more unfinished\)"):
        await start(renamed(), database)


async def test_a_setting_allows_undeclared_steps_at_startup(branch: Branch, database: Database) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))

    (warning,) = await start(renamed(), database, allow_undeclared_steps=True)

    assert (warning["saga_type"], warning["step"], warning["unfinished"]) == ("loan", "lend_book", 1)


async def test_ended_sagas_of_an_undeclared_step_only_warn(branch: Branch, database: Database) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await end(branch, "loan-1")

    (warning,) = await start(renamed(), database)
    assert warning["unfinished"] == 0
    assert warning["cure"].startswith("give the step its old name back")

    await change(database, "DELETE FROM saga_log")
    assert await start(renamed(), database) == []
    async with database.reading() as connection:
        rows = (await connection.execute(known_steps.known_steps.select())).all()
    assert [tuple(row) for row in rows] == [("library", "loan", "hand_out_book")]


@pytest.fixture
async def after(database: Database) -> AsyncIterator[ServiceRuntime]:
    """The next release, running, where lend_book is named hand_out_book."""
    host = ServiceRuntime(renamed(), Settings(database_url=database.url), RecordingPublisher(), clock=SystemClock())
    yield host
    await host.stop()


@pytest.mark.parametrize("sent_again", ["the same message", "a new one"])
async def test_a_late_first_event_skips_the_renamed_step(
    branch: Branch, database: Database, after: ServiceRuntime, sent_again: str
) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await end(branch, "loan-1")
    await after.start()

    facts = {"event_id": new_id()} if sent_again == "a new one" else {}
    await after.batcher.deliver(loan_messages.wire(BookWanted(loan_id="loan-1"), **facts))
    await after.batcher.deliver(loan_messages.wire(BookWanted(loan_id="loan-2")))

    new = [(each.saga_id, each.to_state) for each in await entries(database, "hand_out_book")]
    assert new == [("loan-1", "ignored"), ("loan-2", "completed")]


async def test_late_events_do_not_fence_a_renamed_step(
    branch: Branch, database: Database, after: ServiceRuntime
) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.take(loans.CardRefused(loan_id="loan-1", reason="expired"))
    await branch.executor.execute([loan_messages.message_of(SagaEnded(saga_type="loan", failed=("loan-1",)))])
    await after.start()

    await after.batcher.deliver(loan_messages.wire(loans.CardRefused(loan_id="loan-1", reason="expired")))
    await after.batcher.deliver(loan_messages.wire(loans.CardRefused(loan_id="loan-2", reason="expired")))

    new = [(each.saga_id, each.to_state) for each in await entries(database, "hand_out_book")]
    assert new == [("loan-1", "ignored"), ("loan-2", "fenced")]


async def test_an_event_that_no_former_step_took_runs(
    branch: Branch, database: Database, after: ServiceRuntime
) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await end(branch, "loan-1")
    await after.start()
    await change(database, "UPDATE saga_log SET position = NULL, to_state = 'retrying' WHERE step = 'lend_book'")

    await after.batcher.deliver(loan_messages.wire(BookWanted(loan_id="loan-1")))

    assert (await entries(database, "hand_out_book"))[0].to_state == "completed"


async def entries(database: Database, step: str) -> list[dict]:
    """Return a step's log entries."""
    async with database.reading() as connection:
        return [each for each in await saga_log_queries.entries(connection) if each.step == step]


async def test_a_saga_type_that_was_renamed_is_noticed(branch: Branch, database: Database, clerk: Clerk) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await change(database, "UPDATE saga_log SET saga_type = 'lending'", "DELETE FROM saga_known_steps")

    with pytest.raises(UndeclaredStepsError, match=r"lending/lend_book \(1 unfinished\)"):
        await start(library(clerk), database)


async def test_another_services_steps_stay_its_own(branch: Branch, database: Database) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await change(database, "UPDATE saga_log SET service = 'archive'", "DELETE FROM saga_known_steps")

    (warning,) = await start(renamed(), database)

    assert (warning["service"], warning["of_service"], warning["unfinished"]) == ("library", "archive", 1)


async def test_a_service_restarts_without_a_warning(branch: Branch, database: Database, clerk: Clerk) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))

    assert await start(library(clerk), database) == []


async def test_a_joining_compensations_gate_is_no_former_step(database: Database) -> None:
    clock = ManualClock(NOON)
    venue = await holidays.venues(database, Script(), clock)
    await holidays.taken(venue, holidays.dropout(CatererRefused(conference_id="fair", reason="ill"), clock))

    warnings = await start(venue.executor.service, database)

    assert warnings == []
