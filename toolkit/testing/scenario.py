"""One interleaving of a saga, played on the embedded transport: each message waits until the test delivers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import func, select

from toolkit.configuration.settings import EMBEDDED, Settings
from toolkit.declaration.events import Event, Saga, routing_key
from toolkit.declaration.middleware import CallNext
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.errors import ScenarioError
from toolkit.ids import new_id
from toolkit.messaging.envelope import TIMER, WireMessage, abort_request
from toolkit.persistence import outbox, saga_log_queries
from toolkit.protocol.fence import StepState
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.log_entry import LogEntry
from toolkit.runtime.delivery import settled
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.testing.clock import ManualClock
from toolkit.testing.held_messages import HeldMessages
from toolkit.testing.saga_events import SagaEvents

#: Seconds in which one delivery has to be handled, on a busy machine, too.
_PATIENCE = 30.0
#: Longer than any test: the clock stands still, and moves only over a step's deadline.
_NEVER = timedelta(days=300)
#: The relay need not look for due rows: a timer is delivered by hand.
_POLL = timedelta(minutes=1)
#: More rows than one saga leaves in an outbox.
_MOST_ROWS = 1000
#: An external step in one of these states is calling out.
_CALLING = (StepState.EXECUTING, StepState.VOIDING, StepState.COMPENSATING)
#: How many rows of an outbox are events, which are held in a moment.
_PUBLISHED = select(func.count()).select_from(outbox.outbox).where(outbox.outbox.c.destination.is_(None))


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
        if saga and saga not in sagas:
            raise ScenarioError(f"the services have no saga {saga}: play one of {', '.join(sagas)}")
        self._saga: Saga = sagas[saga] if saga else next(iter(sagas.values()))
        self._events = SagaEvents(self._saga, services, samples)
        self._saga_id = self._events.saga_id
        self._refusing: dict[tuple[str, str], str] = {}
        self._expired: set[tuple[str, str]] = set()
        self._clock = ManualClock()
        self._entries: list[LogEntry] = []
        settings = Settings(data_dir=directory, broker_url=EMBEDDED, relay_poll=_POLL, overdue_after=_NEVER)
        self._transport = HeldMessages([self._scripted(each) for each in services], settings, clock=self._clock)

    async def __aenter__(self) -> Self:
        """Start the services; the saga's first event waits to be delivered."""
        await self._transport.__aenter__()
        self._transport.hold(self._wire(self._events.start))
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
        """Let a step refuse with this event, whenever it runs.

        Raises:
            ScenarioError: the service has no such step, or the step no such refusal.
        """
        refusals = [each.__name__ for each in self._step(service, step).refusals]
        if refusal not in refusals:
            declared = f"it refuses with {', '.join(refusals)}" if refusals else "it can't refuse"
            raise ScenarioError(f"{step} ({service}) does not refuse with {refusal}: {declared}")
        self._refusing[service, step] = refusal

    def abort(self) -> None:
        """Request an abort; it waits to be delivered."""
        request = abort_request(self._saga.name, self._saga_id, "the scenario aborts", now=self._clock.now())
        self._transport.hold(request)

    def answer(self, event: str) -> None:
        """Give an answer; it waits to be delivered.

        Raises:
            ScenarioError: no step waits for such an answer.
        """
        given = self._wire(self._events.answer(event))
        self._transport.hold(replace(given, message_id=new_id()))  # a derived id would mark it as the start

    async def deliver(self, event: str, *, to: str) -> None:
        """Deliver the messages with this event to a service, again if they were before; return when all is committed.

        An event that was not emitted is no error: a declaration that was changed may not emit it any more.

        Raises:
            ScenarioError: no service has this name, or the saga has no such event.
        """
        self._runtime(to)
        self._events.check(event)
        for message in [each for each in self._transport.held if _name(each) == event]:
            await self._deliver(message, to)

    async def expire(self, service: str, step: str) -> None:
        """Let the deadline of a step pass; its next event comes late, too, and no other step's deadline passes.

        Raises:
            ScenarioError: the service has no such step, or the step no timeout.
        """
        if self._step(service, step).timeout is None:
            raise ScenarioError(f"{step} ({service}) has no timeout, so no deadline of it can pass: declare a timeout")
        self._expired.add((service, step))
        for message in await self._timers(service, step):
            with self._late(service, [step]):
                await self._settle(message, service)

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
        found = violations_of(self._saga_id, self._entries, answers=self._events.answers)
        return [f"{each.invariant}: {each.text}" for each in found]

    def _pairs(self) -> list[tuple[WireMessage, str]]:
        return [(message, name) for message in self._transport.held for name in self._transport.consumers(message)]

    async def _deliver(self, message: WireMessage, service: str) -> None:
        if service in self._transport.consumers(message):
            steps = (each for each in self._runtime(service).service.steps if (service, each.name) not in self.states)
            first = [each.name for each in steps if _name(message) in (event.__name__ for event in each.triggers)]
            with self._late(service, first):
                await self._settle(message, service)

    async def _settle(self, message: WireMessage, service: str) -> None:
        async with asyncio.timeout(_PATIENCE):
            await settled(message, self._runtime(service).take)
            await self._quiesce()

    @contextmanager
    def _late(self, service: str, steps: Iterable[str]) -> Iterator[None]:
        """Move the clock over the longest timeout of those steps whose deadlines have passed, and back."""
        expired = (self._step(service, each).timeout for each in steps if (service, each) in self._expired)
        passing = max((each + timedelta(seconds=1) for each in expired if each), default=timedelta())
        self._clock.advance(passing)
        try:
            yield
        finally:
            self._clock.advance(-passing)

    async def _timers(self, service: str, step: str) -> list[WireMessage]:
        """Return the timers of a step that gathers; the relay finds none due, since its clock stands still."""
        later = self._clock.now() + _NEVER
        async with self._runtime(service).database.transaction() as session:
            rows = await outbox.claim(await session.connection(), now=later, until=later, most=_MOST_ROWS)
        return [row.message for row in rows if row.message.headers.get(TIMER) == step]

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
                if await connection.scalar(_PUBLISHED):
                    return True
                entries = await saga_log_queries.entries(connection, saga_id=self._saga_id)
            last = {each.step: each.to_state for each in entries if each.position is not None}
            if any(state in _CALLING for state in last.values()):
                return True
        return False

    def _runtimes(self) -> Iterable[ServiceRuntime]:
        return self._transport.runtimes.values()

    def _runtime(self, service: str) -> ServiceRuntime:
        if service not in self._transport.runtimes:
            declared = ", ".join(self._transport.runtimes)
            raise ScenarioError(f"the scenario has no service {service}: name one of {declared}")
        return self._transport.runtimes[service]

    def _step(self, service: str, step: str) -> Step:
        steps = {each.name: each for each in self._runtime(service).service.steps}
        if step not in steps:
            raise ScenarioError(f"there is no step {step} in {service}: name one of {', '.join(steps)}")
        return steps[step]

    def _scripted(self, service: Service) -> Service:
        async def forced(call_next: CallNext, handler: Step | Compensation, event: Event) -> Event:
            if isinstance(handler, Compensation):
                return self._events.of(handler.emits)
            wanted = self._refusing.get((service.name, handler.name))
            refusal = next((each for each in handler.refusals if each.__name__ == wanted), None)
            return self._events.of(refusal or handler.success)

        provides = dict.fromkeys(service.provides, _nothing)
        return replace(service, provides=provides, tables=None, seed=None, middleware=[forced])

    def _wire(self, event: Event) -> WireMessage:
        return WireMessage(
            event.model_dump_json().encode(), routing_key(type(event)), correlation_id=self._saga_id,
            timestamp=self._clock.now(), headers={"saga-type": self._saga.name},
        )  # fmt: skip


@asynccontextmanager
async def _nothing(_: Settings) -> AsyncIterator[None]:
    yield None


def _name(message: WireMessage) -> str:
    return message.routing_key.rpartition(".")[2]
