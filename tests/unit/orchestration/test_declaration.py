"""A coordinator is declared by its saga and its steps; a wrong declaration fails at once, with the cure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.example_sagas.orchestrated_travel import TripPlan
from tests.example_sagas.travel import FlightBooked, RoomBooked, Script, TripRequested, services, trip_saga
from toolkit import DeclarationError, Received, SagaOrchestrator, SagaStep, Service
from toolkit.errors import StepError
from toolkit.messaging.envelope import WireMessage
from toolkit.orchestration.orchestrator import Parallel, groups_of
from toolkit.orchestration.plan import Plan

TRIP = TripRequested(trip_id="trip-1")


def plan(*steps: SagaStep | Parallel, timeouts: dict[str, timedelta] | None = None) -> Plan:
    """Return the plan of these steps."""
    return Plan.of(groups_of(steps), failed_end=TripPlan.failed_end, timeouts=timeouts or {}, own="trip_plan")


def test_a_coordinator_knows_its_sagas_published_language() -> None:
    assert TripPlan.name == "trip_plan"
    assert TripPlan.events[0] is TripRequested
    assert {RoomBooked, FlightBooked} < set(TripPlan.events)


def test_its_service_consumes_and_sends_these_events() -> None:
    service = Service(name="travelplan", orchestrators=[TripPlan])

    assert service.consumed() == set(TripPlan.events)
    assert service.emitted()["RoomBooked"] is RoomBooked
    assert service.coordinated == {"trip"}
    assert service.sagas == [trip_saga]


def test_a_plan_survives_its_text() -> None:
    found = plan(SagaStep("a", timeout=timedelta(seconds=2)), Parallel(SagaStep("b"), SagaStep("c")))

    assert Plan.read(found.text()) == found
    assert list(found.steps) == ["a", "b", "c", "apologize"]
    assert (found.before("a"), found.before("b"), found.before("c")) == (None, "a", "a")


def test_settings_override_a_planned_timeout() -> None:
    found = plan(SagaStep("a", timeout=timedelta(minutes=1)), timeouts={"a": timedelta(seconds=5)})

    assert found.steps["a"].timeout == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ([], "no steps"),
        ([SagaStep("a"), SagaStep("a")], "two steps of one name"),
        ([SagaStep("trip_plan")], "two steps of one name"),
        ([SagaStep("apologize")], "two steps of one name"),
        ([Parallel(SagaStep("a"), SagaStep("b")), SagaStep("c")], "give it an action"),
    ],
)
def test_a_plan_without_sense_is_refused(steps: list[SagaStep | Parallel], fault: str) -> None:
    with pytest.raises(StepError, match=fault):
        plan(*steps)


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"name": "a b"}, "not a plain word"),
        ({"name": "a", "timeout": 5}, "not a positive timedelta"),
        ({"name": "a", "action": TRIP}, "not a function"),
    ],
)
def test_a_wrong_step_names_its_fault(facts: dict[str, Any], fault: str) -> None:
    with pytest.raises(DeclarationError, match=fault):
        SagaStep(**facts)


def test_a_coordinator_without_a_saga_is_refused() -> None:
    with pytest.raises(DeclarationError, match="names no saga"):

        class Nothing(SagaOrchestrator):
            pass


def test_a_service_coordinates_no_saga_that_it_joins() -> None:
    hotel = services(Script())[0]

    with pytest.raises(DeclarationError, match="takes part already"):
        Service(name="hotel", participants=hotel.participants, orchestrators=[TripPlan], provides=hotel.provides)


def test_a_coordinator_emits_no_other_services_end() -> None:
    class Endless(TripPlan):
        failed_end = None

    with pytest.raises(DeclarationError, match="TripFailed is desk's to emit"):
        Service(name="travelplan", orchestrators=[Endless])


def test_what_was_received_is_found_by_its_class() -> None:
    received = Received([TRIP, RoomBooked(trip_id="trip-1", room="12")])

    assert received[RoomBooked].room == "12"
    assert FlightBooked not in received


async def test_start_publishes_the_event_once_only() -> None:
    sent: list[WireMessage] = []

    class Here:
        async def publish(self, message: WireMessage) -> None:
            sent.append(message)

    assert [await TripPlan.start(TRIP, Here()) for _ in range(2)] == ["trip-1", "trip-1"]
    assert len({message.message_id for message in sent}) == 1
    with pytest.raises(TypeError, match="starts with TripRequested"):
        await TripPlan.start(RoomBooked(trip_id="trip-1"), Here())


@pytest.mark.parametrize("facts", [{"timeout": timedelta(minutes=1)}, {"compensation": lambda _: TRIP}])
def test_a_failed_end_can_not_be_undone(facts: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="its failed_end apologize has a"):
        type("Plan", (SagaOrchestrator,), {"failed_end": SagaStep("apologize", **facts)}, saga=trip_saga)
