"""The names of broker and destination in spans, by OpenTelemetry's conventions for messaging and for RabbitMQ."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from toolkit.configuration.settings import EMBEDDED, Settings

RABBITMQ = "rabbitmq"
#: AMQP's ports, of a URL that names none.
_PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class Broker:
    """The messaging system of one service or client.

    - `exchange`: the shared exchange; empty without a broker.
    - `address`, `port`: the server's; None without a broker.
    """

    system: str = RABBITMQ
    exchange: str = ""
    address: str | None = None
    port: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Broker:
        """Return the broker that these settings name."""
        if settings.broker_url == EMBEDDED:
            return cls(EMBEDDED)
        url = urlsplit(settings.broker_url)
        return cls(RABBITMQ, settings.exchange, url.hostname, url.port or _PORTS.get(url.scheme))

    def attributes(self, *, name: str, kind: str, destination: str, routing_key: str) -> dict[str, str | int]:
        """Return the attributes of one operation; `name` is the toolkit's word for it, `kind` the conventions'."""
        facts: dict[str, str | int | None] = {
            "messaging.system": self.system,
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
            "messaging.destination.name": destination,
            "messaging.rabbitmq.destination.routing_key": routing_key if self.system == RABBITMQ else None,
            "server.address": self.address,
            "server.port": self.port,
        }
        return {name: fact for name, fact in facts.items() if fact is not None}


def destination(exchange: str | None, routing_key: str, queue: str = "") -> str:
    """Return the name of a destination: `exchange:key`, and `exchange:key:queue` for a consumer.

    An empty part is left out, and so is a queue whose name is the routing key.
    """
    return ":".join(filter(None, (exchange, routing_key, "" if queue == routing_key else queue)))
