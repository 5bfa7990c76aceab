"""The declaration of a service: its participants, its tables, and the resources of its steps.

Nothing runs here; the runtime runs a service over a transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import MetaData
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit.configuration.settings import Settings
from toolkit.declaration.events import AbortRequested, Event, Refusal, Saga
from toolkit.declaration.middleware import Middleware, check_middleware
from toolkit.declaration.orchestrator import Orchestrator
from toolkit.declaration.participant import Compensation, Participant, Step
from toolkit.declaration.participant_rules import check_name
from toolkit.declaration.service_rules import (
    check_kinds,
    check_orchestrators,
    check_resources,
    check_sagas,
    check_seed,
    check_starts,
    check_streams,
)

#: Opens a resource that steps take as a parameter of its type, and closes it when the service stops.
Provider = Callable[[Settings], AbstractAsyncContextManager[Any]]
#: Fills the tables, in a transaction of its own at each start. It must be idempotent.
Seed = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: `saga run` runs one, the embedded transport several in one process.

    - `orchestrators`: the coordinators that it runs, each of a saga of its own.
    - `starts`: the sagas that the application around it starts, by `toolkit.start`; its contract has their starting
      events, and so have its rights on the broker.
    - `tables`: the service's own tables, created at the start.
    - `provides`: by type, the resources that steps may take beside event and session, such as a gateway.
    - `seed`: fills the tables at each start; it must be idempotent.
    - `middleware`: functions around each step and compensation, the first one outermost.
    """

    name: str
    participants: Sequence[Participant] = ()
    orchestrators: Sequence[type[Orchestrator]] = ()
    starts: Sequence[Saga] = ()
    tables: MetaData | None = None
    provides: Mapping[type, Provider] = field(default_factory=dict)
    seed: Seed | None = None
    middleware: Sequence[Middleware] = ()

    def __post_init__(self) -> None:
        check_name("Service", self.name)
        check_kinds(self.name, self.participants, self.tables)
        check_starts(self.name, self.starts)
        check_streams(self.name, self.steps, self.compensations)
        check_seed(self.name, self.seed)
        check_middleware(self.name, self.middleware)
        check_sagas(self.name, self.participants)
        check_orchestrators(self.name, self.orchestrators, self.participants)
        check_resources(self.name, self.handlers, self.provides)

    @property
    def steps(self) -> list[Step]:
        """The steps of all participants, in the order of their declaration."""
        return [step for participant in self.participants for step in participant.steps]

    @property
    def compensations(self) -> list[Compensation]:
        """The compensations of all participants, in the order of their declaration."""
        return [each for participant in self.participants for each in participant.compensations]

    @property
    def handlers(self) -> list[Step | Compensation]:
        """The steps, and then the compensations, of all participants."""
        return [*self.steps, *self.compensations]

    @property
    def has_joins(self) -> bool:
        """Whether any of its functions takes several events."""
        return any(each.signature.is_join for each in self.handlers)

    @property
    def sagas(self) -> list[Saga]:
        """The sagas that the service takes part in."""
        sagas = [*(each.saga for each in self.participants), *(each.saga for each in self.orchestrators)]
        return list({saga.name: saga for saga in sagas}.values())

    @property
    def coordinated(self) -> frozenset[str]:
        """The types of the sagas that the service coordinates."""
        return frozenset(each.saga.name for each in self.orchestrators)

    @property
    def final_steps(self) -> frozenset[str]:
        """The names of the steps that nothing can undo: they have no compensation, or end the saga."""
        undoable = {each.of.name for each in self.compensations if not each.of.ends_saga}
        return frozenset(step.name for step in self.steps) - undoable

    def consumed(self) -> set[type[Event]]:
        """Return the domain events that the service consumes."""
        received = {event for each in self.orchestrators for event in each.events}
        return received | {event for participant in self.participants for event in participant.consumed()}

    def saga_types(self) -> dict[type[Event], str]:
        """Return the saga type of each event that the service consumes in one saga only."""
        found: dict[type[Event], set[str]] = {}
        for saga, events in (
            *((each.saga, each.consumed()) for each in self.participants),
            *((each.saga, each.events) for each in self.orchestrators),
        ):
            for event in events:
                found.setdefault(event, set()).add(saga.name)
        return {event: next(iter(types)) for event, types in found.items() if len(types) == 1}

    def emitted(self) -> dict[str, type[Event]]:
        """Return the events that the service may emit, by name; a coordinator sends on what it receives."""
        sent_on = {event.__name__: event for each in self.orchestrators for event in each.events}
        return sent_on | {event.__name__: event for participant in self.participants for event in participant.emitted()}

    def sendable(self) -> dict[str, type[Event]]:
        """Return the events that the log may hold as sent, by name; a coordinator sends requests to undo, too."""
        return self.emitted() | ({AbortRequested.__name__: AbortRequested} if self.orchestrators else {})

    def compensation_events(self) -> set[type[Event]]:
        """Return the events that the service consumes or emits on compensation paths, the failed end included.

        Of a coordinator these are the refusals alone: it does not know what compensations emit.
        """
        endings = [step for step in self.steps if step.success is step.saga.fails_with]
        undoing = {event for each in self.compensations for event in (*each.triggers, each.emits)}
        received = {event for each in self.orchestrators for event in each.events if issubclass(event, Refusal)}
        return undoing | received | {event for step in endings for event in (*step.triggers, step.success)}
