"""A coordinator asks step by step and gives a late one up; an asked service runs a step on its command alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import states
from tests.example_sagas.orchestrated_travel import COORDINATOR, orchestrated_services
from tests.example_sagas.travel import FlightBooked, RoomBooked, Script, TicketIssued, TripRequested, trip_saga
from toolkit import Event, SagaOrchestrator, SagaStep, Service
from toolkit.declaration.events import AbortRequested
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Message
from toolkit.persistence.database import Database
from toolkit.protocol.commands import Address, Outcome, Reply, Verb
from toolkit.testing import ManualClock

TRIP = TripRequested(trip_id="trip-1")
ASK = Address(COORDINATOR, Verb.ASK, "book_room")


@pytest.fixture
def coordinator(database: Database, clock: ManualClock) -> Branch:
    return Branch(orchestrated_services(Script())[-1], database, resources={}, clock=clock)


def received(event: Event, clock: ManualClock, **facts: Any) -> Message:
    kind = type(event).__name__
    known = {"event_id": derived_id("trip", "trip-1", kind), "saga_id": "trip-1", "saga_type": "trip"}
    return message_of(event, at=clock.now(), **(known | facts))


async def test_a_coordinator_asks_the_step_after_a_reply(
    coordinator: Branch, database: Database, clock: ManualClock
) -> None:
    reply = Reply("book_room", Outcome.COMPLETED)

    await coordinator.executor.execute([received(TRIP, clock)])
    await coordinator.executor.execute([received(RoomBooked(trip_id="trip-1"), clock, reply=reply)])
    await coordinator.relay.drain()

    asked = [each.routing_key for each in coordinator.publisher.taken]
    assert asked == [f"{COORDINATOR}.Ask.book_room", f"{COORDINATOR}.Ask.book_flight"]


async def test_a_coordinator_gives_up_a_late_step(coordinator: Branch, database: Database, clock: ManualClock) -> None:
    await coordinator.executor.execute([received(TRIP, clock)])
    clock.advance(timedelta(minutes=2))

    await coordinator.executor.execute([received(TRIP, clock, timer="book_room")])
    await coordinator.relay.drain()

    assert "voiding" in await states(database, "trip-1")
    assert coordinator.publisher.taken[-1].routing_key == f"{COORDINATOR}.Undo.book_room"


async def test_an_asked_step_runs_on_its_command_alone(database: Database, clock: ManualClock) -> None:
    hotel, script = orchestrated_services(Script())[0], Script()
    assert hotel.tables is not None
    await database.create_tables(hotel.tables)
    branch = Branch(hotel, database, resources={Script: script}, clock=clock, asked_by={"trip": COORDINATOR})

    await branch.executor.execute([received(TRIP, clock)])
    unasked = dict(script.calls)
    await branch.executor.execute([received(TRIP, clock, address=ASK, event_id="asked")])

    assert (unasked, script.calls["book_room"]) == ({}, 1)
    async with database.reading() as connection:
        assert (await connection.execute(text("SELECT what FROM effects"))).scalars().all() == ["room booked"]


async def test_an_abort_gives_up_the_step_that_is_asked(
    coordinator: Branch, database: Database, clock: ManualClock
) -> None:
    abort = AbortRequested(saga_type="trip", saga_id="trip-1", reason="the traveller is ill")
    await coordinator.executor.execute([received(TRIP, clock)])

    await coordinator.executor.execute([received(abort, clock)])
    await coordinator.relay.drain()

    assert "voiding" in await states(database, "trip-1")
    assert coordinator.publisher.taken[-1].routing_key == f"{COORDINATOR}.Undo.book_room"


async def test_a_coordinator_asks_for_the_end_of_others(
    coordinator: Branch, database: Database, clock: ManualClock
) -> None:
    """The last step has announced the end; a nudge makes the coordinator ask for it, not announce it again."""
    await coordinator.executor.execute([received(TRIP, clock)])
    for event, step in ((RoomBooked, "book_room"), (FlightBooked, "book_flight"), (TicketIssued, "issue_ticket")):
        reply = Reply(step, Outcome.FINAL if event is TicketIssued else Outcome.COMPLETED)
        await coordinator.executor.execute([received(event(trip_id="trip-1"), clock, reply=reply)])
    await coordinator.relay.drain()
    before = len(coordinator.publisher.taken)

    again = received(RoomBooked(trip_id="trip-1"), clock, reply=Reply("book_room", Outcome.COMPLETED), nudge="n-1")
    await coordinator.executor.execute([again])
    await coordinator.relay.drain()

    assert [each.type for each in coordinator.publisher.taken[before:]] == ["EndRequested"]


async def test_an_error_of_the_coordinator_is_named(database: Database, clock: ManualClock) -> None:
    class BrokenPlan(SagaOrchestrator, saga=trip_saga):
        failed_end = SagaStep("apologize")

        def define_steps(self, data: TripRequested) -> list[SagaStep]:
            raise LookupError("no such plan")

    branch = Branch(Service(name=COORDINATOR, orchestrators=[BrokenPlan]), database, resources={}, clock=clock)

    await branch.executor.execute([received(TRIP, clock)])

    async with database.reading() as connection:
        kept = (await connection.execute(text("SELECT reason, error FROM saga_dead_letters"))).one()
    assert tuple(kept) == ("coordinator failed", "LookupError: no such plan")
