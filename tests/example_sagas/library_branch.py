"""A replica of the library's service, with the runtime's parts, and a publisher that records its messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from tests.example_sagas.loan_messages import message_of
from toolkit import Event, Service, Settings
from toolkit.clock import Clock, SystemClock
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.envelope import WireMessage
from toolkit.observability.tracing import Tracing
from toolkit.persistence.database import Database
from toolkit.runtime.batcher import Batcher
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_calls import ExternalCalls
from toolkit.runtime.invocation import Invocation
from toolkit.runtime.relay import Relay
from toolkit.runtime.unit_of_work import ExternalCall

#: What becomes of a message: it is confirmed when this returns, and not if it raises.
Fate = Callable[[WireMessage], Coroutine[Any, Any, None]]


class RecordingPublisher:
    """A publisher that records its messages; the test can plan a fate for the next ones."""

    def __init__(self) -> None:
        self.taken: list[WireMessage] = []
        self.destinations: list[str | None] = []
        self.bursts: list[int] = []
        self._fates: list[Fate] = []

    def will(self, *fates: Fate) -> None:
        """Plan the fates of the next messages, in order; later ones are confirmed at once."""
        self._fates.extend(fates)

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        """Record the messages, and return the outcome of each: an error, or None, which confirms it."""
        self.bursts.append(len(messages))
        self.taken += (message for message, _ in messages)
        self.destinations += (destination for _, destination in messages)
        fates, self._fates = self._fates[: len(messages)], self._fates[len(messages) :]
        coming = [fate(message) for fate, (message, _) in zip(fates, messages, strict=False)]
        outcomes = await asyncio.gather(*coming, return_exceptions=True)
        errors = [ConnectionError() if isinstance(each, asyncio.CancelledError) else each for each in outcomes]
        return [each if isinstance(each, Exception) else None for each in errors] + [None] * (
            len(messages) - len(errors)
        )

    def saga_ids(self) -> list[str | None]:
        """Return the saga ids of the recorded messages, in order."""
        return [message.correlation_id for message in self.taken]


class Branch:
    """A replica of a service on a given database: its executor, its external calls, its batcher and its relay."""

    def __init__(
        self, service: Service, database: Database, *, resources: dict[type, Any], clock: Clock | None = None,
        batch_size: int = 50, window: int = 500, tracing: Tracing | None = None, reads_first: bool = False,
        asked_by: Mapping[str, str] | None = None, reminders: Mapping[str, timedelta] | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock or SystemClock()
        self.publisher = RecordingPublisher()
        self.database = database
        self.relay = Relay(
            database,
            self.publisher,
            service="library",
            clock=self.clock,
            window=window,
            lease=timedelta(seconds=5),
            poll=timedelta(milliseconds=20),
            tracing=tracing,
        )
        self.executor = Executor(
            service,
            Settings(reads_first=reads_first, asked_by=dict(asked_by or {}), step_reminders=dict(reminders or {})),
            queue=f"saga.{service.name}",
            database=database,
            invocation=Invocation(resources, middleware=service.middleware),
            relay=self.relay,
            clock=self.clock,
            tracing=tracing,
        )
        self.external_calls = ExternalCalls(self.executor, concurrency=8, batch_size=batch_size)
        decoder = Decoder(service.consumed(), service.sagas, max_body=100_000)
        self.batcher = Batcher(self.executor, self.external_calls, decoder, clock=self.clock, batch_size=batch_size)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Run the batcher within the block."""
        running = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def take(self, *events: Event) -> list[ExternalCall]:
        """Execute these events as one batch, and return the external calls that follow."""
        calls = await self.executor.execute([message_of(event, at=self.clock.now()) for event in events])
        return [call for of_one in calls for call in of_one]

    async def handle(self, event: Event) -> None:
        """Execute one event, and make its external calls."""
        for call in await self.take(event):
            await self.external_calls.run(call)
