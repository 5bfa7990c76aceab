"""Sending the events that start sagas: to the broker, or to all services embedded in this process.

The message's id is derived from the saga's, so an event that is sent twice is one message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from toolkit.clock import Clock
from toolkit.configuration.settings import Settings
from toolkit.declaration.events import Event, Saga
from toolkit.declaration.service import Service
from toolkit.errors import UnreachableError, UnroutableError
from toolkit.messaging.envelope import WireMessage, starting_message
from toolkit.observability.broker_attributes import Broker
from toolkit.observability.tracing import Tracing, now, tracing_for

#: How many messages are under way at once.
_BURST = 100
#: How long Ctrl-C waits for the confirms of the messages under way, in seconds; a broker at work takes milliseconds.
_LAST_CONFIRMS = 10.0
#: The pauses, in seconds, between two tries to send an event that no service consumes yet.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
#: How long embedded services may take to finish their work before this process ends, in seconds.
_EMBEDDED_PATIENCE = 30
#: The client's service name in traces, unless OTEL_SERVICE_NAME is set; and how long exporting may take, in seconds.
_CLIENT, _FLUSH = "saga", 3.0


class Publisher(Protocol):
    """Publishes one message; it is stored once this returns."""

    async def publish(self, message: WireMessage) -> None:
        """Publish the message."""
        ...


@asynccontextmanager
async def publisher_for(services: Iterable[Service], settings: Settings) -> AsyncIterator[Publisher]:
    """Open the transport; embedded services run here, and finish before this ends.

    Raises:
        UnreachableError: the broker does not answer.
    """
    # Each transport costs a second to import, and only one of them is needed.
    if settings.broker_url == "embedded":
        from toolkit.transport.embedded import Embedded

        async with Embedded(list(services), settings) as embedded:
            yield embedded
            await embedded.settled(_EMBEDDED_PATIENCE)
    else:
        from toolkit.transport.rabbitmq.publisher import RabbitPublisher

        async with RabbitPublisher(settings) as publisher:
            yield publisher


@asynccontextmanager
async def client_tracing(settings: Settings) -> AsyncIterator[Tracing | None]:
    """Open the client's tracing, where the environment asks for traces; its spans are exported at the end."""
    if (tracing := tracing_for(_CLIENT, Broker.of(settings))) is None:
        yield None
        return
    yield tracing
    await asyncio.to_thread(tracing.shut_down, _FLUSH)


async def send(
    saga: Saga,
    events: Mapping[str, Event],
    publisher: Publisher,
    *,
    clock: Clock,
    tracing: Tracing | None = None,
    patience: timedelta = timedelta(0),
    sent: Callable[[str], None] = lambda _: None,
) -> None:
    """Send these starting events, by saga id; an event that no service consumes yet is tried for `patience`.

    `sent` is called with each saga's id as soon as its event is stored.

    Raises:
        UnroutableError: no service consumes them.
        UnreachableError: the connection to the broker was lost meanwhile.
    """
    spans = {}
    if tracing:
        spans = {saga_id: tracing.begin_saga(saga.name, saga_id, event) for saga_id, event in events.items()}
    traces = {saga_id: span.traceparent for saga_id, span in spans.items()}
    messages = [
        starting_message(saga.name, saga_id, event, now=clock.now(), traceparent=traces.get(saga_id))
        for saga_id, event in events.items()
    ]
    await send_all(messages, publisher, patience=patience, sent=sent)
    for span in spans.values():
        span.end(at=now())


async def send_all(
    messages: Sequence[WireMessage],
    publisher: Publisher,
    *,
    patience: timedelta = timedelta(0),
    sent: Callable[[str], None] = lambda _: None,
) -> None:
    """Send these messages; one that no service consumes yet is tried for `patience`.

    `sent` is called with the saga's id of each message that is stored.

    Raises:
        UnroutableError: no service consumes them.
        UnreachableError: the connection to the broker was lost meanwhile.
    """
    until = time.monotonic() + patience.total_seconds()
    for start in range(0, len(messages), _BURST):
        await _send_burst([_send_one(each, publisher, until, sent) for each in messages[start : start + _BURST]])


async def _send_burst(burst: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Send all of these; after an error or Ctrl-C the messages under way are still awaited.

    A message that the broker has must be reported: an unreported order would be sent again.
    """
    under_way = [asyncio.create_task(each) for each in burst]
    try:
        await asyncio.wait(under_way)
    except asyncio.CancelledError:
        await asyncio.wait(under_way, timeout=_LAST_CONFIRMS)
        raise
    finally:
        errors = [error for each in under_way if not each.cancel() and (error := each.exception())]
    if errors:
        raise errors[0]


async def _send_one(message: WireMessage, publisher: Publisher, until: float, sent: Callable[[str], None]) -> None:
    try:
        await _published(message, publisher, until)
    except UnroutableError as error:
        raise UnroutableError(f"{error}: start the service that consumes it, by `saga run`, and send again") from error
    except (TimeoutError, OSError) as error:
        raise UnreachableError(
            "the connection to the broker was lost while messages were sent, so some sagas may have started: "
            "look with `saga ls`"
        ) from error
    sent(str(message.correlation_id))


async def _published(message: WireMessage, publisher: Publisher, until: float) -> None:
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(UnroutableError),
        stop=lambda _: time.monotonic() >= until,
        wait=wait_exponential_jitter(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE),
        reraise=True,
    ):
        with attempt:
            await publisher.publish(message)
