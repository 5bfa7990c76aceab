"""An embedded transport whose messages wait until they are delivered by hand."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.clock import Clock
from toolkit.configuration.settings import Settings
from toolkit.declaration.events import EndRequested, SagaEnded, SagaWaits, routing_key
from toolkit.declaration.service import Service
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.embedded import Embedded

#: Messages that are not held: no step runs on them.
_AT_ONCE = {routing_key(SagaEnded), routing_key(EndRequested), routing_key(SagaWaits)}


class HeldMessages(Embedded):
    """An embedded transport that keeps what is published, until it is delivered by hand."""

    def __init__(self, services: Sequence[Service], settings: Settings, *, clock: Clock) -> None:
        super().__init__(services, settings, clock=clock)
        self.held: list[WireMessage] = []
        self.ends: list[WireMessage] = []

    def hold(self, message: WireMessage) -> None:
        """Keep a message."""
        self.held.append(message)

    def consumers(self, message: WireMessage) -> list[str]:
        """Return the services that consume a message."""
        return [each.service.name for each in self._bound.get(message.routing_key, [])]

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        """Keep the events, and confirm them; what closes a saga, and a service's messages to itself, go through."""
        through = [each for each in messages if each[1] or each[0].routing_key in _AT_ONCE]
        self.ends += (message for message, _ in messages if message.routing_key == routing_key(SagaEnded))
        for message, _ in (each for each in messages if each not in through):
            self.hold(message)
        outcomes = iter(await super().publish_many(through))
        return [next(outcomes) if each in through else None for each in messages]
