"""One interleaving of a saga, played on the embedded transport: each message waits until the test delivers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import func, select

from toolkit.configuration.settings import EMBEDDED, Settings
from toolkit.declaration.events import Answer, EndRequested, Event, Saga, SagaEnded, routing_key
from toolkit.declaration.middleware import CallNext
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage, abort_request
from toolkit.persistence import saga_log_queries
from toolkit.persistence.outbox import outbox
from toolkit.protocol.fence import StepState
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.log_entry import LogEntry
from toolkit.runtime.delivery import settled
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.testing.clock import ManualClock
from toolkit.testing.samples import sample
from toolkit.transport.embedded import Embedded

#: Ids of a played saga; the first one that the starting event takes.
_IDS = ("scenario-1", "1", "0190a1b2-c3d4-7e5f-8a6b-9c0d1e2f3a4b")
#: Seconds in which one delivery has to be handled, on a busy machine, too.
_PATIENCE = 30.0
#: Longer than any test: the clock stands still, and moves only over a step's deadline.
_NEVER = timedelta(days=300)
#: An external step in one of these states is calling out.
_CALLING = (StepState.EXECUTING, StepState.VOIDING, StepState.COMPENSATING)
#: Messages that are not held: they only close what has ended.
_AT_ONCE = {routing_key(SagaEnded), routing_key(EndRequested)}


class Scenario:
    """Plays one saga of these services, step by step.

        async with Scenario([hotel, rental, agency], directory=tmp_path) as scenario:
            scenario.refuse("hotel", "book_room", "RoomRefused")
            await scenario.deliver("TripRequested", to="hotel")
            assert await scenario.violations() == []

    No function of the services runs: each step and compensation emits a sample of its event, a step that `refuse` names
    its refusal. `saga`: the saga's name, where the services take part in several. `samples`: events to emit, for types
    whose schemas do not tell which values are valid.

    Raises:
        ValueError: no sample of an event can be made.
    """

    def __init__(
        self, services: Sequence[Service], *, directory: Path, saga: str | None = None, samples: Iterable[Event] = ()
    ) -> None:
        sagas = {each.name: each for service in services for each in service.sagas}
        self._saga: Saga = sagas[saga] if saga else next(iter(sagas.values()))
        self._refusing: dict[tuple[str, str], str] = {}
        self._clock = ManualClock()
        self._entries: list[LogEntry] = []
        settings = Settings(
            data_dir=directory, broker_url=EMBEDDED, relay_poll=timedelta(milliseconds=20), overdue_after=_NEVER
        )
        self._transport = _Held([self._scripted(each) for each in services], settings, clock=self._clock)
        self._events = {type(each): each for each in samples}
        self._start = self._started()
        self._saga_id = str(getattr(self._start, self._saga.id_field))
        for event_type in self._types():
            self._events[event_type] = self._built(event_type)

    async def __aenter__(self) -> Self:
        """Start the services; the saga's first event waits to be delivered."""
        await self._transport.__aenter__()
        self._transport.hold(self._wire(self._start))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the services."""
        await self._transport.__aexit__(kind, error, trace)

    @property
    def states(self) -> dict[tuple[str, str], str]:
        """The state of each step, by its service and its name, after the last delivery."""
        return {(each.service, each.step): str(each.to_state) for each in self._entries if each.position is not None}

    def refuse(self, service: str, step: str, refusal: str) -> None:
        """Let a step refuse with this event, whenever it runs."""
        self._refusing[service, step] = refusal

    def abort(self) -> None:
        """Request an abort; it waits to be delivered."""
        request = abort_request(self._saga.name, self._saga_id, "the scenario aborts", now=self._clock.now())
        self._transport.hold(request)

    def answer(self, event: str) -> None:
        """Give an answer; it waits to be delivered."""
        given = next(built for event_type, built in self._events.items() if event_type.__name__ == event)
        self._transport.hold(replace(self._wire(given), message_id=new_id()))  # a derived id would mark it as the start

    async def deliver(self, event: str, *, to: str) -> None:
        """Deliver the messages with this event to a service, again if they were before; return when all is committed.

        An event that was not emitted is no error: a declaration that was changed may not emit it any more.
        """
        for message in [each for each in self._transport.held if _name(each) == event]:
            await self._deliver(message, to)

    async def expire(self, service: str, step: str) -> None:
        """Let the deadline of a step pass."""
        runtime = self._transport.runtimes[service]
        declared = next(each for each in runtime.service.steps if each.name == step)
        passing = (declared.timeout or timedelta()) + timedelta(seconds=1)
        due = await _delayed(runtime, until=self._clock.now() + passing)
        self._clock.advance(passing)
        async with asyncio.timeout(_PATIENCE):
            while due & await _delayed(runtime):  # noqa: ASYNC110 -- a table sends no notification; a row in delivery has a later due time
                await asyncio.sleep(0.01)
            await self._quiesce()

    async def violations(self) -> list[str]:
        """Deliver all that waits, everywhere, and return the violated invariants, as `saga verify` finds them."""
        done = set[tuple[int, str]]()
        while waiting := [each for each in self._pairs() if (id(each[0]), each[1]) not in done]:
            for message, service in waiting:
                done.add((id(message), service))
                await self._deliver(message, service)
        for message in self._transport.ends:  # a step that ran after its saga's end learns of it, as from a nudge
            for service in self._transport.consumers(message):
                await self._deliver(message, service)
        answers = [each.__name__ for each in self._events if issubclass(each, Answer)]
        found = violations_of(self._saga_id, self._entries, answers=answers)
        return [f"{each.invariant}: {each.text}" for each in found]

    def _pairs(self) -> list[tuple[WireMessage, str]]:
        return [(message, name) for message in self._transport.held for name in self._transport.consumers(message)]

    async def _deliver(self, message: WireMessage, service: str) -> None:
        if service in self._transport.consumers(message):
            async with asyncio.timeout(_PATIENCE):
                await settled(message, self._transport.runtimes[service].take)
                await self._quiesce()

    async def _quiesce(self) -> None:
        """Wait until each event that was emitted is held, and no external step is calling out; read the logs."""
        while await self._is_busy():  # noqa: ASYNC110 -- a table sends no notification
            await asyncio.sleep(0.01)
        for runtime in self._runtimes():
            async with runtime.database.reading() as connection:
                entries = await saga_log_queries.entries(connection, saga_id=self._saga_id, saga_type=self._saga.name)
            read = sum(each.service == runtime.service.name for each in self._entries)
            self._entries += entries[read:]

    async def _is_busy(self) -> bool:
        for runtime in self._runtimes():
            async with runtime.database.reading() as connection:
                published = select(func.count()).select_from(outbox).where(outbox.c.destination.is_(None))
                if await connection.scalar(published):
                    return True
                entries = await saga_log_queries.entries(connection, saga_id=self._saga_id)
            last = {each.step: each.to_state for each in entries if each.position is not None}
            if any(state in _CALLING for state in last.values()):
                return True
        return False

    def _runtimes(self) -> Iterable[ServiceRuntime]:
        return self._transport.runtimes.values()

    def _scripted(self, service: Service) -> Service:
        async def forced(call_next: CallNext, handler: Step | Compensation, event: Event) -> Event:
            if isinstance(handler, Compensation):
                return self._events[handler.emits]
            wanted = self._refusing.get((service.name, handler.name))
            refusal = next((each for each in handler.refusals if each.__name__ == wanted), None)
            return self._events[refusal or handler.success]

        provides = dict.fromkeys(service.provides, _nothing)
        return replace(service, provides=provides, tables=None, seed=None, middleware=[forced])

    def _types(self) -> Iterator[type[Event]]:
        """Yield the events of the saga that may be emitted, or sent by people."""
        for participant in (each for runtime in self._runtimes() for each in runtime.service.participants):
            if participant.saga.name == self._saga.name:
                yield from participant.emitted()
                yield from (each for each in participant.consumed() if issubclass(each, Answer))

    def _started(self) -> Event:
        start = self._saga.starts_with
        if start in self._events:
            return self._events[start]
        for saga_id in _IDS:
            own: dict[str, Any] = {self._saga.id_field: saga_id}
            try:
                return sample(start, **own)
            except ValueError as error:
                fault = error
        raise fault

    def _built(self, event_type: type[Event]) -> Event:
        facts = {self._saga.id_field: self._saga_id, "reason": "the scenario says so"}
        known = {name: fact for name, fact in facts.items() if name in event_type.model_fields}
        if event_type in self._events:
            return self._events[event_type].model_copy(update=known)
        return sample(event_type, like=self._start, **known)

    def _wire(self, event: Event) -> WireMessage:
        return WireMessage(
            event.model_dump_json().encode(), routing_key(type(event)), correlation_id=self._saga_id,
            timestamp=self._clock.now(), headers={"saga-type": self._saga.name},
        )  # fmt: skip


class _Held(Embedded):
    """An embedded transport that keeps what is published, until it is delivered by hand."""

    def __init__(self, services: Sequence[Service], settings: Settings, *, clock: ManualClock) -> None:
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


async def _delayed(runtime: ServiceRuntime, *, until: datetime | None = None) -> set[str]:
    """Return the rows of a service's messages to itself; with a time, of those that are due by then."""
    rows = select(outbox.c.id).where(outbox.c.destination.is_not(None))
    async with runtime.database.reading() as connection:
        return set(await connection.scalars(rows if until is None else rows.where(outbox.c.due_at <= until)))


@asynccontextmanager
async def _nothing(_: Settings) -> AsyncIterator[None]:
    yield None


def _name(message: WireMessage) -> str:
    return message.routing_key.rpartition(".")[2]
