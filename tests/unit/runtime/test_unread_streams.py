"""A plain forward step runs without a read of the log; the fence's key and one look at the log find what differs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import states
from tests.example_sagas.loans import BookLent, BookWanted, loan_saga
from tests.example_sagas.orchestrated_travel import TripPlan
from tests.example_sagas.travel import TripRequested
from tests.unit.runtime.copies import Counter, open_copies_branch, slips, statements, wanted
from toolkit import Event, Participant, Refusal, RetryPolicy, Saga, SagaId, Service
from toolkit.persistence.database import Database
from toolkit.runtime.log_reads import LogReads
from toolkit.testing import ManualClock

READ = "SELECT saga_log"


class TripArchived(Event, owner="clerk"):
    trip_id: SagaId


class TripNotArchived(Refusal, owner="clerk"):
    trip_id: SagaId


@pytest.fixture
async def careful_branch(database: Database, counter: Counter) -> Branch:
    """A replica that reads the log before each step."""
    return await open_copies_branch(database, counter, reads_first=True)


async def test_plain_forward_steps_read_no_log(copies_branch: Branch, database: Database) -> None:
    with statements(database) as executed:
        await copies_branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-2", "loan-3"]
    assert not [each for each in executed if each.startswith(READ)]


async def test_a_duplicate_among_others_changes_nothing(
    copies_branch: Branch, database: Database, counter: Counter
) -> None:
    await copies_branch.take(*wanted(2))
    await copies_branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-2", "loan-3"]
    assert [await states(database, f"loan-{number}") for number in (1, 2, 3)] == [["completed"]] * 3
    assert copies_branch.publisher.saga_ids() == ["loan-2", "loan-1", "loan-3"]
    assert counter.calls == ["loan-2", "loan-1", "loan-2", "loan-3", "loan-1", "loan-3"]


async def test_reading_first_calls_no_function_twice(
    careful_branch: Branch, database: Database, counter: Counter
) -> None:
    await careful_branch.take(*wanted(2))
    await careful_branch.take(*wanted(1, 2, 3))

    assert counter.calls == ["loan-2", "loan-1", "loan-3"]
    assert await slips(database) == ["loan-1", "loan-2", "loan-3"]


async def test_two_copies_in_one_batch_run_once(copies_branch: Branch, database: Database, counter: Counter) -> None:
    await copies_branch.take(*wanted(1, 1))

    assert counter.calls == ["loan-1"]
    assert await states(database, "loan-1") == ["completed"]


async def test_a_refused_loan_ignores_a_duplicate(copies_branch: Branch, database: Database, counter: Counter) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("no shelf")

    counter.acts["loan-1"] = fail
    await copies_branch.take(*wanted(1))
    del counter.acts["loan-1"]
    await copies_branch.take(*wanted(1))

    assert await states(database, "loan-1") == ["failed"]
    assert await slips(database) == []


async def test_a_step_without_a_session_needs_no_savepoint(database: Database) -> None:
    async def lend_book(event: BookWanted) -> BookLent:
        if event.loan_id == "loan-2":
            raise RuntimeError("no shelf")
        return BookLent(loan_id=event.loan_id)

    participant = Participant("library", saga=loan_saga, retry=RetryPolicy(attempts=1))
    participant.step()(lend_book)
    await database.create_tables()
    branch = Branch(Service(name="library", participants=[participant]), database, resources={})

    with statements(database) as executed:
        await branch.take(*wanted(1, 2, 3))

    assert [await states(database, f"loan-{number}") for number in (1, 2, 3)] == [["completed"], [], ["completed"]]
    assert not [each for each in executed if "SAVEPOINT" in each]


def test_what_a_coordinator_receives_needs_the_log(clock: ManualClock) -> None:
    """Its service may take part in another saga with steps on the same event."""
    archive = Saga(
        name="archive", id_field="trip_id", starts_with=TripRequested, completes_with=TripArchived,
        fails_with=TripNotArchived,
    )  # fmt: skip
    clerk = Participant("clerk", saga=archive)

    @clerk.step()
    async def archive_trip(event: TripRequested) -> TripArchived:
        raise NotImplementedError

    def is_read(service: Service) -> bool:
        reads = LogReads(service, former_steps=(), clock=clock, reads_first=False)
        trip = TripRequested(trip_id="trip-1")
        return reads.are_needed_for(message_of(trip, at=clock.now(), saga_id="trip-1", saga_type="archive"))

    assert not is_read(Service(name="clerk", participants=[clerk]))
    assert is_read(Service(name="clerk", participants=[clerk], orchestrators=[TripPlan]))
