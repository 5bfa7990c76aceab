"""Publishes one exchange's messages; a publish is done at the broker's confirm."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aio_pika.abc import AbstractChannel, AbstractRobustConnection
from aio_pika.exceptions import ChannelInvalidStateError, PublishError
from faststream.rabbit import Channel

from toolkit.configuration.settings import Settings
from toolkit.errors import BrokerRefusesError, EscapedError, UnreachableError, UnroutableError, describe
from toolkit.foreign_code.containment import contained
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.acknowledgements import AWAY
from toolkit.transport.rabbitmq.bursts import Burst
from toolkit.transport.rabbitmq.connection import as_error, broker_of, open_connection, stands
from toolkit.transport.rabbitmq.refusals import refusal_of
from toolkit.transport.rabbitmq.topology import as_given, event_exchange, given_exchanges
from toolkit.transport.rabbitmq.write_batching import join_writes

#: A confirm is awaited for this share of the relay's lease, so that a row is in flight once.
_SHARE_OF_LEASE = 0.8


class RabbitPublisher:
    """Publishes to one exchange over a connection of its own: a memory alarm blocks a connection that publishes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange = event_exchange(settings)
        self._is_refused = False
        self._confirm_timeout = settings.relay_lease.total_seconds() * _SHARE_OF_LEASE
        # The default channel publishes only: a failed publish closes its channel, and consumers with it.
        channel = Channel(publisher_confirms=True, on_return_raises=True)
        self._broker = broker_of(settings, default_channel=channel)
        self._connection: AbstractRobustConnection | None = None
        self._channel: AbstractChannel | None = None

    async def __aenter__(self) -> Self:
        """Connect, once, and make sure of the exchange.

        Raises:
            UnreachableError: the broker does not answer or rejects the login.
            BrokerRefusesError: the exchange exists, with another type.
        """
        try:
            await self.connect()
        except AWAY as error:
            await self.close()
            raise as_error(error, self._settings) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self.close()

    async def connect(self) -> None:
        """Connect, and declare the exchange; a login without the right to declare it needs it to exist."""
        self._connection = await open_connection(self._broker)
        await given_exchanges(self._connection, [self._exchange])
        self._channel = (await self._broker.declare_exchange(as_given(self._exchange))).channel

    async def close(self) -> None:
        """Disconnect."""
        await self._broker.stop()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open, and the broker accepted the last publish."""
        return stands(self._connection) and not self._is_refused

    def _open_channel(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            raise ChannelInvalidStateError("the channel is closed")
        return self._channel

    async def publish(self, message: WireMessage, *, destination: str | None = None) -> None:
        """Send a persistent, mandatory message and wait for the confirm.

        Raises:
            UnroutableError: no queue is bound to its routing key.
            UnreachableError: no confirm came; whether the message arrived is unknown.
        """
        (error,) = await self.publish_many([(message, destination)])
        if error:
            raise error

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        """Send persistent, mandatory messages, each with its destination; return None or the error for each.

        A destination is a service's queue: the service's own exchange of the same name leads to it under any key. The
        errors are those of `publish`.
        """
        exchange = self._exchange.name
        burst = Burst([(message, to or exchange) for message, to in messages], login=self._settings.login)
        try:
            # aiormq ends a publish on a dying connection in CancelledError, though nothing cancelled it.
            with contained("publishing"):
                async with asyncio.timeout(self._confirm_timeout):
                    await burst.publish(join_writes(await self._open_channel().get_underlay_channel()))
        except Exception as error:  # noqa: BLE001 -- whatever the client raises, each message has an outcome
            burst.fail(error)
        errors = [
            outcome and self._error_of(outcome, *each) for outcome, each in zip(burst.outcomes, messages, strict=True)
        ]
        is_refused = any(isinstance(error, BrokerRefusesError) for error in errors)
        self._is_refused = is_refused or (self._is_refused and None not in errors)
        return errors

    def _error_of(self, outcome: Exception, message: WireMessage, destination: str | None) -> Exception:
        """Return the error of a message that is not confirmed, in the toolkit's terms."""
        error: Exception
        if isinstance(outcome, PublishError):
            error = UnroutableError(f"no queue is bound to {destination or message.routing_key}")
        elif isinstance(outcome, (*AWAY, EscapedError)):
            error = refusal_of(outcome, self._settings) or UnreachableError(
                f"the broker did not confirm {message.message_id}: {describe(outcome)}"
            )
        else:
            return outcome
        error.__cause__ = outcome
        return error
