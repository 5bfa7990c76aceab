"""One interleaving of a saga, played on the embedded transport: each message waits until the test delivers it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from toolkit.declaration.events import Event, Saga, routing_key
from toolkit.declaration.service import Service
from toolkit.errors import ScenarioError
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage, abort_request
from toolkit.protocol.invariants import violations_of
from toolkit.testing.clock import ManualClock
from toolkit.testing.played_services import PlayedServices
from toolkit.testing.saga_events import SagaEvents
from toolkit.testing.scripted_steps import ScriptedSteps


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
        self._steps = ScriptedSteps(services, lambda kind, _: self._events.of(kind))
        self._expired: set[tuple[str, str]] = set()
        self._clock = ManualClock()
        scripted, played = [self._steps.played(each) for each in services], (self._saga.name, self._saga_id)
        self._services = PlayedServices(scripted, directory=directory, saga=played, clock=self._clock)

    async def __aenter__(self) -> Self:
        """Start the services; the saga's first event waits to be delivered."""
        await self._services.__aenter__()
        self._services.hold(self._wire(self._events.start))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the services."""
        await self._services.__aexit__(kind, error, trace)

    @property
    def states(self) -> dict[tuple[str, str], str]:
        """The state of each step, by its service and its name, after the last delivery."""
        return self._services.states

    def refuse(self, service: str, step: str, refusal: str) -> None:
        """Let a step refuse with this event, whenever it runs.

        Raises:
            ScenarioError: the service has no such step, or the step no such refusal.
        """
        self._steps.refuse(service, step, refusal)

    def abort(self) -> None:
        """Request an abort; it waits to be delivered."""
        request = abort_request(self._saga.name, self._saga_id, "the scenario aborts", now=self._clock.now())
        self._services.hold(request)

    def answer(self, event: str) -> None:
        """Give an answer; it waits to be delivered.

        Raises:
            ScenarioError: no step waits for such an answer.
        """
        given = self._wire(self._events.answer(event))
        self._services.hold(replace(given, message_id=new_id()))  # a derived id would mark it as the start

    async def deliver(self, event: str, *, to: str) -> None:
        """Deliver the messages with this event to a service, again if they were before; return when all is committed.

        An event that was not emitted is no error: a declaration that was changed may not emit it any more.

        Raises:
            ScenarioError: no service has this name, the saga has no such event, or it is an answer that was not given.
        """
        self._services.runtime(to)
        self._events.check(event)
        waiting = [each for each in self._services.held if _name(each) == event]
        if not waiting and event in self._events.answers:
            raise ScenarioError(f'no {event} was given: give it by scenario.answer("{event}"), then deliver it')
        for message in waiting:
            await self._deliver(message, to)

    async def expire(self, service: str, step: str) -> None:
        """Let the deadline of a step pass; its next event comes late, too, and no other step's deadline passes.

        Raises:
            ScenarioError: the service has no such step, or the step no timeout.
        """
        if self._services.step(service, step).timeout is None:
            raise ScenarioError(f"{step} ({service}) has no timeout, so no deadline of it can pass: declare a timeout")
        self._expired.add((service, step))
        for message in await self._services.timers(service, step):
            with self._late(service, [step]):
                await self._services.deliver(message, service)

    async def violations(self) -> list[str]:
        """Deliver all that waits, everywhere, and return the violated invariants, as `saga verify` finds them."""
        done = set[tuple[int, str]]()
        while waiting := [each for each in self._services.pairs() if (id(each[0]), each[1]) not in done]:
            for message, service in waiting:
                done.add((id(message), service))
                await self._deliver(message, service)
        for message in self._services.ends:  # a step that ran after its saga's end learns of it, as from a nudge
            for service in self._services.consumers(message):
                await self._deliver(message, service)
        found = violations_of(self._saga_id, self._services.entries, answers=self._events.answers)
        return [f"{each.invariant}: {each.text}" for each in found]

    async def _deliver(self, message: WireMessage, service: str) -> None:
        if service in self._services.consumers(message):
            steps = (
                each
                for each in self._services.runtime(service).service.steps
                if (service, each.name) not in self.states
            )
            first = [each.name for each in steps if _name(message) in (event.__name__ for event in each.triggers)]
            with self._late(service, first):
                await self._services.deliver(message, service)

    @contextmanager
    def _late(self, service: str, steps: Iterable[str]) -> Iterator[None]:
        """Move the clock over the longest timeout of those steps whose deadlines have passed, and back."""
        expired = (self._services.step(service, each).timeout for each in steps if (service, each) in self._expired)
        passing = max((each + timedelta(seconds=1) for each in expired if each), default=timedelta())
        self._clock.advance(passing)
        try:
            yield
        finally:
            self._clock.advance(-passing)

    def _wire(self, event: Event) -> WireMessage:
        return WireMessage(
            event.model_dump_json().encode(), routing_key(type(event)), correlation_id=self._saga_id,
            timestamp=self._clock.now(), headers={"saga-type": self._saga.name},
        )  # fmt: skip


def _name(message: WireMessage) -> str:
    return message.routing_key.rpartition(".")[2]
