"""The broker of a simulation: copies of messages that wait until the test delivers them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column

from toolkit.configuration.settings import Settings, queue_name
from toolkit.declaration.events import routing_key
from toolkit.declaration.service import Service
from toolkit.errors import UnroutableError
from toolkit.messaging.envelope import CONTROL_EVENTS, WireMessage
from toolkit.persistence.dead_letters import dead_letters
from toolkit.persistence.outbox import outbox
from toolkit.persistence.saga_log import saga_log

#: How long a slow confirm takes, in seconds: shorter than a relay's lease.
_SLOW = 3
#: The faults of a publish: it is lost; it arrives and its confirm is lost; its confirm is slow.
STUMBLES = ("lost", "unconfirmed", "slow")


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """One copy of a message, in the queue of one service."""

    service: str
    message: WireMessage

    def __repr__(self) -> str:
        return f"{self.message.type} → {self.service} ({self.message.correlation_id})"


class Wire:
    """A topic exchange with one queue per service that keeps no order.

    - `waiting`: the unacknowledged messages, oldest first.
    - `seen`: all messages that ever waited, for late duplicates.
    - `stumbles`: the faults of the next publishes.
    """

    def __init__(self, services: Sequence[Service], settings: Settings) -> None:
        self.waiting: list[Parcel] = []
        self.seen: list[Parcel] = []
        self.stumbles: deque[str] = deque()
        self._queues = {queue_name(settings, service.name): service.name for service in services}
        self._bound: dict[str, list[str]] = {}
        for service in services:
            for event in (*service.consumed(), *CONTROL_EVENTS):
                self._bound.setdefault(routing_key(event), []).append(service.name)

    def hold(self, message: WireMessage, *, destination: str | None = None) -> list[Parcel]:
        """Put a copy into each queue that is bound to the message.

        Raises:
            UnroutableError: no queue is.
        """
        names = [self._queues[destination]] if destination else self._bound.get(message.routing_key, [])
        if not names:
            raise UnroutableError(f"no service consumes {message.routing_key}")
        parcels = [Parcel(name, message) for name in names]
        self.waiting += parcels
        self.seen += parcels
        return parcels


class Exit:
    """The publisher of one service: it puts messages on the wire.

    - `owed`: the messages that were sent and not confirmed; they have to stay in the outbox.
    """

    def __init__(self, wire: Wire, check: Callable[[WireMessage], None]) -> None:
        self.owed: dict[str | None, WireMessage] = {}
        self._wire = wire
        self._check = check

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        """Put messages on the wire, unless the test has planned faults, and return the outcome of each."""
        outcomes = await asyncio.gather(*(self._publish(*each) for each in messages), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ConnectionError | UnroutableError):
                raise outcome
        return [outcome if isinstance(outcome, Exception) else None for outcome in outcomes]

    async def _publish(self, message: WireMessage, destination: str | None) -> None:
        self._check(message)
        stumble = self._wire.stumbles.popleft() if self._wire.stumbles else None
        self.owed[message.message_id] = message
        if stumble == "lost":
            raise ConnectionError("the broker is away")
        unconsumed: UnroutableError | None = None
        try:
            self._wire.hold(message, destination=destination)
        except UnroutableError as error:
            unconsumed = error
        if stumble == "unconfirmed":
            raise ConnectionError("the connection broke before the confirm")
        if stumble == "slow":
            await asyncio.sleep(_SLOW)
        # A returned message counts as answered, too.
        self.owed.pop(message.message_id, None)
        if unconsumed:
            raise unconsumed


def is_committed(database: sqlite3.Connection, message: WireMessage) -> bool:
    """Whether this database's outbox holds the message, committed."""
    return _has(database, outbox.c.message_id, message)


def is_recorded(database: sqlite3.Connection, message: WireMessage) -> bool:
    """Whether a service has committed a result of this message: an entry, a retry or a dead letter."""
    places = saga_log.c.event_id, outbox.c.message_id, dead_letters.c.message_id
    return any(_has(database, column, message) for column in places)


def _has(database: sqlite3.Connection, column: Column[Any], message: WireMessage) -> bool:
    query = f"SELECT EXISTS (SELECT 1 FROM {column.table.name} WHERE {column.name} = ?)"  # noqa: S608 -- names in the code
    return bool(database.execute(query, (message.message_id,)).fetchone()[0])
