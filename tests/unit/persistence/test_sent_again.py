"""An event of the log is sent again as it was sent: a command to its step, an event as its step's reply."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.example_sagas.orchestrated_travel import COORDINATOR
from tests.example_sagas.travel import RoomBooked, RoomCancelled, RoomRefused
from toolkit import Event
from toolkit.declaration.events import AbortRequested
from toolkit.persistence.emitted_events import EmittedEvent
from toolkit.protocol.fence import StepState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def emitted(kind: type[Event], to_state: StepState, **facts: Any) -> EmittedEvent:
    """Return the event that a step emitted with its move to this state."""
    known: dict[str, Any] = {
        "service": "hotel", "saga_id": "trip-1", "saga_type": "trip", "step": "book_room", "to_state": to_state.value,
        "saga_state": "Pending", "event_id": "1", "event_type": "TripRequested", "emitted_id": "2",
        "emitted_type": kind.__name__, "emitted_version": 1, "emitted_body": '{"trip_id": "trip-1"}', "deadline": None,
        "traceparent": None, "started_at": NOW, "at": NOW,
    }  # fmt: skip
    return EmittedEvent(**(known | facts))


@pytest.mark.parametrize(
    ("state", "verb"),
    [(StepState.EXECUTING, "ask"), (StepState.VOIDING, "undo"), (StepState.COMPENSATING, "undo")],
)
def test_a_coordinators_nudge_repeats_its_command(state: StepState, verb: str) -> None:
    sent = emitted(AbortRequested, state, service=COORDINATOR).as_sent(AbortRequested, nudge="3", final_steps=())

    assert sent.routing_key == f"{COORDINATOR}.{verb.title()}.book_room"
    assert (sent.headers[verb], sent.headers["nudge"]) == ("book_room", "3")
    assert "reply" not in sent.headers


@pytest.mark.parametrize(
    ("kind", "state", "final", "outcome"),
    [
        (RoomBooked, StepState.COMPLETED, (), "completed"),
        (RoomBooked, StepState.COMPLETED, ("book_room",), "final"),
        (RoomRefused, StepState.FAILED, (), "refused"),
        (RoomRefused, StepState.FENCED, (), "refused"),
        (RoomCancelled, StepState.FENCED, (), "undone"),
        (RoomCancelled, StepState.COMPENSATED, (), "undone"),
    ],
)
def test_a_steps_nudge_repeats_its_reply(
    kind: type[Event], state: StepState, final: tuple[str, ...], outcome: str
) -> None:
    sent = emitted(kind, state).as_sent(kind, final_steps=final)

    assert sent.routing_key == f"hotel.{kind.__name__}"
    assert (sent.headers["reply"], sent.headers["outcome"]) == ("book_room", outcome)
