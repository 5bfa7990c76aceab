"""Steps whose outcome a test decides: those of services that are only played, and those that are to refuse or fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from toolkit.configuration.settings import Settings
from toolkit.declaration.events import Event, Refusal
from toolkit.declaration.middleware import CallNext
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Provider, Service
from toolkit.errors import ScenarioError

#: Returns the event of a type that a played step emits, after the event that it runs on.
EventOf = Callable[[type[Event], Event], Event]


class ScriptedSteps:
    """The outcomes that a test has decided, by service and step."""

    def __init__(self, services: Iterable[Service], event_of: EventOf) -> None:
        self._services = {each.name: each for each in services}
        self._event_of = event_of
        self._refusing: dict[tuple[str, str], Refusal | type[Refusal]] = {}
        self._failures: Counter[str] = Counter()
        self._errors: dict[str, Exception] = {}

    def refuse(self, service: str, step: str, refusal: str | Refusal | type[Refusal] | None) -> None:
        """Let a step refuse, whenever it runs; with None by its only refusal.

        Raises:
            ScenarioError: the service has no such step, or the step no such refusal.
        """
        refusals = self._step(service, step).refusals
        name = refusal if isinstance(refusal, str) else getattr(refusal, "__name__", type(refusal).__name__)
        named = [each for each in refusals if each.__name__ == name]
        if refusal is None and len(refusals) == 1:
            named = list(refusals)
        if not named:
            declared = (
                f"it refuses with {', '.join(each.__name__ for each in refusals)}" if refusals else "it can't refuse"
            )
            asked = "names none of its refusals" if refusal is None else f"does not refuse with {name}"
            raise ScenarioError(f"{step} ({service}) {asked}: {declared}")
        self._refusing[service, step] = refusal if isinstance(refusal, Refusal) else named[0]

    def fail(self, handler: str, times: int, error: Exception) -> None:
        """Let the next attempts of a step or a compensation fail with this error.

        Raises:
            ScenarioError: no service has such a step or compensation.
        """
        names = {each.name for service in self._services.values() for each in service.handlers}
        if handler not in names:
            raise ScenarioError(f"there is no step or compensation {handler}: name one of {', '.join(sorted(names))}")
        self._failures[handler] = times
        self._errors[handler] = error

    def service_of(self, step: str) -> str:
        """Return the service that has a step of this name.

        Raises:
            ScenarioError: none has, or several have.
        """
        having = [each.name for each in self._services.values() if step in (of.name for of in each.steps)]
        if len(having) == 1:
            return having[0]
        steps = sorted(of.name for each in self._services.values() for of in each.steps)
        fault = f"{', '.join(having)} have a step {step}" if having else f"there is no step {step}"
        raise ScenarioError(f"{fault}: name one of {', '.join(steps)}")

    def played(self, service: Service) -> Service:
        """Return the service without its own functions: each step emits its success, unless it is to refuse."""
        provides = dict.fromkeys(service.provides, _nothing)
        forced = self._middleware(service, is_played=True)
        return replace(service, provides=provides, tables=None, seed=None, middleware=[forced])

    def steered(self, service: Service, provides: Mapping[type, Provider]) -> Service:
        """Return the service with its own functions, except where the test has decided, and with these resources."""
        own = {kind: provider for kind, provider in provides.items() if kind in service.provides}
        forced = self._middleware(service, is_played=False)
        return replace(service, provides={**service.provides, **own}, middleware=[forced, *service.middleware])

    def _middleware(self, service: Service, *, is_played: bool) -> Any:
        async def forced(call_next: CallNext, handler: Step | Compensation, event: Event) -> Event:
            if self._failures[handler.name] > 0:
                self._failures[handler.name] -= 1
                raise self._errors[handler.name]
            if isinstance(handler, Compensation):
                return self._event_of(handler.emits, event) if is_played else await call_next()
            refusal = self._refusing.get((service.name, handler.name))
            if isinstance(refusal, Refusal):
                return refusal
            if refusal or is_played:
                return self._event_of(refusal or handler.success, event)
            return await call_next()

        return forced

    def _step(self, service: str, step: str) -> Step:
        if service not in self._services:
            raise ScenarioError(f"there is no service {service}: name one of {', '.join(self._services)}")
        steps = {each.name: each for each in self._services[service].steps}
        if step not in steps:
            raise ScenarioError(f"there is no step {step} in {service}: name one of {', '.join(steps)}")
        return steps[step]


@asynccontextmanager
async def _nothing(_: Settings) -> AsyncIterator[None]:
    yield None
