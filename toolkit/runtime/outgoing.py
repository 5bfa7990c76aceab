"""The rows that one transaction adds to the outbox: events, messages to the service itself, and timers."""

from __future__ import annotations

from datetime import datetime, timedelta

from toolkit.declaration.events import Event
from toolkit.ids import new_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.persistence.outbox import OutboxRow, event_row
from toolkit.protocol.keys import StreamKey, reminder_id, timer_id

#: How long a timer that came too early waits at least.
_CLOCKS_DIFFER = timedelta(seconds=1)


class Outgoing:
    """Collects rows; `due_at` is the due time of events, unless they are sent at the commit.

    - `events`: sent at the commit.
    - `delayed`: to the service itself, sent at their due time.
    - `cancelled`: the ids of timers to be deleted.
    """

    def __init__(self, *, queue: str, now: datetime, due_at: datetime) -> None:
        self.events: list[OutboxRow] = []
        self.delayed: list[OutboxRow] = []
        self.cancelled: list[str] = []
        self._timers: dict[str, OutboxRow] = {}
        self._queue = queue
        self._now = now
        self._due_at = due_at

    def rows(self) -> list[OutboxRow]:
        """Return all rows."""
        return [*self.events, *self.delayed, *self._timers.values()]

    def send(self, envelope: Envelope, event: Event, body: bytes | None = None) -> OutboxRow:
        """Send an event; `body` is the event as JSON, if at hand."""
        row = event_row(envelope.carry(event, body), type(event), due_at=self._due_at)
        self.events.append(row)
        return row

    def send_back(self, wire: WireMessage, row_id: str, due_at: datetime) -> None:
        """Send a message to this service's own queue at `due_at`."""
        self.delayed.append(OutboxRow(id=row_id, message=wire, due_at=due_at, destination=self._queue))

    def set_timer(self, wire: WireMessage, key: StreamKey, deadline: datetime) -> None:
        """Send a message to this service's own queue at a step's deadline, unless the step moves on before.

        It is not handed over to the relay, whose poll finds the few that come due.
        """
        self._set(timer_id(self._queue, key), wire, deadline)

    def set_timer_again(self, wire: WireMessage, key: StreamKey, deadline: datetime) -> None:
        """Send a timer again that came too early; its row differs from the one that is just being delivered."""
        due_at = max(deadline, self._now + _CLOCKS_DIFFER)
        self.send_back(wire, f"{timer_id(self._queue, key)}@{new_id()}", due_at)

    def set_reminder(self, wire: WireMessage, key: StreamKey, number: int, due_at: datetime) -> None:
        """Send a message to this service's own queue when a question may still be open, unless the step moves on."""
        self._set(reminder_id(self._queue, key, number), wire, due_at)

    def cancel_timer(self, key: StreamKey) -> None:
        """Delete the timer of a step that has moved on, or whose saga has ended."""
        self._cancel(timer_id(self._queue, key))

    def cancel_reminder(self, key: StreamKey, number: int) -> None:
        """Delete the reminder that would come next."""
        self._cancel(reminder_id(self._queue, key, number))

    def _set(self, row_id: str, wire: WireMessage, due_at: datetime) -> None:
        self._timers[row_id] = OutboxRow(id=row_id, message=wire, due_at=due_at, destination=self._queue)

    def _cancel(self, row_id: str) -> None:
        if self._timers.pop(row_id, None) is None:
            self.cancelled.append(row_id)
