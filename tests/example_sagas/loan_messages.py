"""A loan's events as messages: in their envelopes, on the wire and in the outbox."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.example_sagas.loans import NOON, BookLent
from toolkit import Event
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Envelope, Message, WireMessage
from toolkit.persistence.outbox import OutboxRow


def envelope(event: Event, *, at: datetime | None = None, **facts: Any) -> Envelope:
    """Return an event's envelope."""
    loan_id = str(getattr(event, "loan_id", ""))
    kind = type(event).__name__
    known: dict[str, Any] = {
        "event_id": derived_id("loan", loan_id, kind),
        "event_type": kind,
        "version": event.__version__,
        "saga_id": loan_id,
        "saga_type": "loan",
        "occurred_at": at or datetime.now(UTC),
    }
    return Envelope(**(known | facts))


def message_of(event: Event, *, at: datetime | None = None, **facts: Any) -> Message:
    """Return an event as a received message."""
    return Message(envelope(event, at=at, **facts), event, event.model_dump_json().encode())


def wire(event: Event, *, at: datetime | None = None, **facts: Any) -> WireMessage:
    """Return an event as a message on the wire."""
    return envelope(event, at=at, **facts).carry(event)


def outbox_row(loan_id: str, *, due_at: datetime, **facts: Any) -> OutboxRow:
    """Return an outbox row with this loan's `BookLent`."""
    event = BookLent(loan_id=loan_id)
    return OutboxRow(id=f"row of {loan_id}", message=wire(event, at=NOON), due_at=due_at, **facts)
