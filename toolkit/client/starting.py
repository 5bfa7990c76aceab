"""Sending the events that start sagas: to the broker, or to all services embedded in this process.

The message's id is derived from the saga's, so the same order sent twice is one message.
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
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.observability.tracing import now, tracing_for

#: How many messages are under way at once.
_BURST = 100
#: How long, in seconds, Ctrl-C waits for the confirms of what is under way; one at work takes milliseconds.
_LAST_CONFIRMS = 10.0
#: The pauses, in seconds, between two tries to send what nobody listens to yet.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
#: How long embedded services may go on with what they began before this process ends, in seconds.
_EMBEDDED_PATIENCE = 30
#: What the command is called in traces, unless OTEL_SERVICE_NAME says; and how long it tries to send them, in seconds.
_CLIENT, _FLUSH = "saga", 3.0


class Publisher(Protocol):
    """Takes one message; it is safe once this returns."""

    async def publish(self, message: WireMessage) -> None:
        """Send the message."""
        ...


@asynccontextmanager
async def publisher_for(services: Iterable[Service], settings: Settings) -> AsyncIterator[Publisher]:
    """Open the way to the services; embedded ones are run here, and finish before this ends.

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
        from toolkit.transport.rabbitmq.endpoints import RabbitPublisher

        async with RabbitPublisher(settings) as publisher:
            yield publisher


async def send(
    saga: Saga,
    events: Mapping[str, Event],
    publisher: Publisher,
    *,
    clock: Clock,
    patience: timedelta = timedelta(0),
    sent: Callable[[str], None] = lambda _: None,
) -> None:
    """Send these starting events, by saga id; a service that does not listen yet is waited for that long.

    `sent` is told the id of each saga whose event is safe, as soon as it is.

    Raises:
        UnroutableError: no service listens to them.
        UnreachableError: the broker went away meanwhile.
    """
    async with _traced(saga, events) as traces:
        messages = [
            starting_message(saga, saga_id, event, clock=clock, traceparent=traces.get(saga_id))
            for saga_id, event in events.items()
        ]
        await send_all(messages, publisher, patience=patience, sent=sent)


@asynccontextmanager
async def _traced(saga: Saga, events: Mapping[str, Event]) -> AsyncIterator[Mapping[str, str]]:
    """Begin a trace for each saga, where the environment asks for traces; they are told of once all is sent."""
    if (tracing := tracing_for(_CLIENT)) is None:
        yield {}
        return
    spans = {saga_id: tracing.begin_saga(saga.name, saga_id, type(event).__name__) for saga_id, event in events.items()}
    yield {saga_id: span.traceparent for saga_id, span in spans.items()}
    for span in spans.values():
        span.end(at=now())
    await asyncio.to_thread(tracing.shut_down, _FLUSH)


async def send_all(
    messages: Sequence[WireMessage],
    publisher: Publisher,
    *,
    patience: timedelta = timedelta(0),
    sent: Callable[[str], None] = lambda _: None,
) -> None:
    """Send these messages; a service that does not listen yet is waited for that long.

    `sent` is told the id of the saga of each message that is safe.

    Raises:
        UnroutableError: no service listens to them.
        UnreachableError: the broker went away meanwhile.
    """
    until = time.monotonic() + patience.total_seconds()
    for start in range(0, len(messages), _BURST):
        await _send_burst([_send_one(each, publisher, until, sent) for each in messages[start : start + _BURST]])


async def _send_burst(burst: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Send all of these; where one fails, or Ctrl-C comes, what is under way is still waited for.

    What the broker has is safe, and has to be told of: an order that is sent and not told of is sent again.
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
        raise UnroutableError(
            f"{error}: start the service that listens to it, by `saga run`, and send again"
        ) from error
    except (TimeoutError, OSError) as error:
        raise UnreachableError(
            "the broker went away while messages were sent, so some sagas may have started: look with `saga ls`"
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


def starting_message(
    saga: Saga, saga_id: str, event: Event, *, clock: Clock, traceparent: str | None = None
) -> WireMessage:
    """Return the message that starts a saga with this event."""
    envelope = Envelope.of(
        type(event),
        event_id=derived_id(saga.name, saga_id, type(event).__name__),
        saga=(saga.name, saga_id),
        occurred_at=clock.now(),
        traceparent=traceparent,
    )
    return envelope.carry(event)
