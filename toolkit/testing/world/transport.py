"""The embedded transport of a world: an event that leaves it, for a service that is not part of it, is confirmed."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.clock import Clock
from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.errors import UnroutableError
from toolkit.messaging.envelope import CONTROL_EVENTS, WireMessage
from toolkit.testing.simulation.kept_database import KeptDatabase
from toolkit.transport.embedded import Embedded

_CONTROL = {event.__name__ for event in CONTROL_EVENTS}


class WorldTransport(Embedded):
    """An embedded transport that keeps what its services emit.

    - `emitted`: the events, in the order in which they were committed; a copy under the same id is left out.
    """

    def __init__(self, services: Sequence[Service], settings: Settings, *, clock: Clock) -> None:
        super().__init__(services, settings, clock=clock)
        for runtime in self.runtimes.values():
            runtime.database = KeptDatabase(runtime.database.url)
        self.emitted: list[WireMessage] = []
        self._ids: set[str | None] = set()

    def consumes(self, message: WireMessage) -> bool:
        """Whether a service of the world consumes the message."""
        return message.routing_key in self._bound

    async def receive(self, message: WireMessage) -> None:
        """Hand over a client's message, and return once the services that consume it have committed."""
        (error,) = await super().publish_many([(message, None)])
        if error:
            raise error

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        """Keep the events, and hand them to the services of the world that consume them."""
        for message, destination in messages:
            is_event = destination is None and message.type not in _CONTROL
            if is_event and message.message_id not in self._ids:
                self._ids.add(message.message_id)
                self.emitted.append(message)
        outcomes = await super().publish_many(messages)
        return [None if isinstance(each, UnroutableError) else each for each in outcomes]
