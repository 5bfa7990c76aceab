"""The trip of `travel` with a coordinator: the three services as they are, and a fourth that asks their steps."""

from __future__ import annotations

from datetime import timedelta

from tests.example_sagas.travel import (
    FlightBooked,
    RoomBooked,
    RoomRefused,
    Script,
    TripRequested,
    services,
    trip_saga,
)
from toolkit import Parallel, Received, SagaOrchestrator, SagaStep, Service

#: The coordinator's service; SAGA_ASKED_BY names it.
COORDINATOR = "travelplan"


class TripPlan(SagaOrchestrator, saga=trip_saga):
    """Books the room, then the flight, and then issues the ticket."""

    failed_end = SagaStep("apologize")

    def define_steps(self, data: TripRequested) -> list[SagaStep]:
        minute = timedelta(minutes=1)
        return [
            SagaStep("book_room", timeout=minute),
            SagaStep("book_flight", timeout=minute),
            SagaStep("issue_ticket", timeout=minute),
        ]


class ParallelTripPlan(SagaOrchestrator, saga=trip_saga):
    """Books the room and the flight at once, and issues the ticket when both are booked."""

    failed_end = SagaStep("apologize", action=lambda received: RoomRefused(trip_id=id_of(received), reason="no trip"))

    def define_steps(self, data: TripRequested) -> list[SagaStep | Parallel]:
        booked = SagaStep("book_flight", action=lambda received: RoomBooked(trip_id=id_of(received)))
        return [
            Parallel(SagaStep("book_room"), booked),
            SagaStep("issue_ticket", action=lambda received: received[FlightBooked]),
        ]


def id_of(received: Received) -> str:
    """Return the trip's id."""
    return received[TripRequested].trip_id


def parallel_services(script: Script) -> list[Service]:
    """Return the three services, and a coordinator that asks two of their steps at once."""
    return [*services(script), Service(name=COORDINATOR, orchestrators=[ParallelTripPlan])]


def orchestrated_services(script: Script) -> list[Service]:
    """Return the three services, which follow this script, and the coordinator."""
    return [*services(script), Service(name=COORDINATOR, orchestrators=[TripPlan])]
