"""The trip of `travel` with a coordinator: the three services as they are, and a fourth that asks their steps."""

from __future__ import annotations

from datetime import timedelta

from tests.example_sagas.travel import Script, TripRequested, services, trip_saga
from toolkit import SagaOrchestrator, SagaStep, Service

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


def orchestrated_services(script: Script) -> list[Service]:
    """Return the three services, which follow this script, and the coordinator."""
    return [*services(script), Service(name=COORDINATOR, orchestrators=[TripPlan])]
