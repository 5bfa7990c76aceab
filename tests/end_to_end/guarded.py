"""A broker with the logins and the rights of deploy/rabbitmq, started as compose.yaml does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelAccessRefused

from services.demo import SERVICES
from tests.servers import RABBITMQ, container_for, wait_for_answer
from toolkit.declaration.contract import Contract

PROJECT = Path(__file__).parents[2]
CONTRACTS = [Contract.of(service) for service in SERVICES]
#: Each login's password is its name.
LOGINS = ("admin", "saga", *(contract.service for contract in CONTRACTS))


@dataclass(frozen=True, slots=True)
class Guarded:
    """The broker's address."""

    host: str
    port: int

    def url(self, login: str) -> str:
        """Return the address for this login."""
        return f"amqp://{login}:{login}@{self.host}:{self.port}/"

    async def connect(self, login: str) -> AbstractConnection:
        """Connect as this login."""
        return await aio_pika.connect(self.url(login))


@contextmanager
def guarded_broker() -> Iterator[Guarded]:
    """Run a broker for the tests."""
    container = container_for(RABBITMQ).with_volume_mapping(str(PROJECT / "deploy" / "rabbitmq"), "/saga", "ro")
    container = container.with_kwargs(entrypoint=["sh", "/saga/start.sh"], user="rabbitmq")
    for login in LOGINS:
        container = container.with_env(f"{login.upper()}_PASSWORD", login)
    with container:
        found = Guarded(container.get_container_host_ip(), int(container.get_exposed_port(RABBITMQ.port)))
        wait_for_answer(RABBITMQ, found.host, found.port, container)
        yield found


async def is_allowed(connection: AbstractConnection, act: Any) -> bool:
    """Whether the broker allows `act(channel)`, on a channel of its own: a refusal closes the channel."""
    channel: AbstractChannel = await connection.channel()
    try:
        await act(channel)
    except ChannelAccessRefused:
        return False
    await channel.close()
    return True


def publishing(exchange: str, key: str, **properties: Any) -> Any:
    """Return a function that publishes an event under this key; an empty text names the default exchange."""

    async def publish(channel: AbstractChannel) -> None:
        message = aio_pika.Message(properties.pop("body", b"{}"), **properties)
        to = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        await to.publish(message, key, mandatory=False)

    return publish


def binding(queue: str, exchange: str, key: str) -> Any:
    """Return a function that binds a queue to this key, and unbinds it."""

    async def bind(channel: AbstractChannel) -> None:
        declared = await channel.get_queue(queue, ensure=False)
        await declared.bind(exchange, routing_key=key)
        await declared.unbind(exchange, routing_key=key)

    return bind
