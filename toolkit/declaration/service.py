"""The declaration of a service: its participants, its tables, and the resources of its steps.

Nothing runs here; the runtime runs a service over a transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar, Protocol

from sqlalchemy import MetaData
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit.configuration.settings import Settings
from toolkit.declaration.events import AbortRequested, Event, Refusal, Saga
from toolkit.declaration.middleware import Middleware, check_middleware
from toolkit.declaration.participant import Compensation, Participant, Step
from toolkit.declaration.participant_rules import check_name
from toolkit.declaration.signature import is_coroutine_function
from toolkit.errors import DeclarationError

#: Opens a resource that steps take as a parameter of its type, and closes it when the service stops.
Provider = Callable[[Settings], AbstractAsyncContextManager[Any]]
#: Fills the tables, in a transaction of its own at each start. It must be idempotent.
Seed = Callable[[AsyncSession], Awaitable[None]]


class Orchestrator(Protocol):
    """What a service needs to know of a coordinator that it runs; `toolkit.orchestration` declares them.

    - `name`: its own stream in the saga log.
    - `events`: the events that it may receive, and send on.
    """

    saga: ClassVar[Saga]
    events: ClassVar[tuple[type[Event], ...]]
    name: ClassVar[str]
    failed_end: ClassVar[Any]

    def groups_for(self, data: Any) -> Sequence[Sequence[Any]]:
        """Return the steps of the saga that this event starts, in groups that are asked at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: `saga run` runs one, the embedded transport several in one process.

    - `orchestrators`: the coordinators that it runs, each of a saga of its own.
    - `tables`: the service's own tables, created at the start.
    - `provides`: by type, the resources that steps may take beside event and session, such as a gateway.
    - `seed`: fills the tables at each start; it must be idempotent.
    - `middleware`: functions around each step and compensation, the first one outermost.
    """

    name: str
    participants: Sequence[Participant] = ()
    orchestrators: Sequence[type[Orchestrator]] = ()
    tables: MetaData | None = None
    provides: Mapping[type, Provider] = field(default_factory=dict)
    seed: Seed | None = None
    middleware: Sequence[Middleware] = ()

    def __post_init__(self) -> None:
        check_name("Service", self.name)
        self._check_kinds()
        self._check_names()
        if self.seed is not None and not is_coroutine_function(self.seed):
            raise DeclarationError(
                f"Service {self.name!r}",
                f"its seed {getattr(self.seed, '__name__', self.seed)!r} is not a coroutine function",
                "Declare it as `async def seed(session: AsyncSession) -> None`",
            )
        check_middleware(self.name, self.middleware)
        self._check_sagas()
        self._check_orchestrators()
        for handler in self.handlers:
            for name, wanted in handler.signature.resources.items():
                if wanted not in self.provides:
                    raise DeclarationError(
                        f"{handler.function.__module__}.{handler.name}",
                        f"the parameter {name!r} takes a {wanted.__name__}, which {self.name} does not provide",
                        f"Add it: Service(provides={{{wanted.__name__}: how_to_open_one}})",
                    )

    def _check_kinds(self) -> None:
        """Check that the participants are a sequence of them, and the tables a MetaData."""
        where, given = f"Service {self.name!r}", self.participants
        if isinstance(given, Participant):
            cure = f"Pass a list: participants=[{given.name}]"
            raise DeclarationError(where, "its participants are no list", cure)
        each: object  # whatever was passed
        for each in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
            if not isinstance(each, Participant):
                cure = 'Pass a list: participants=[Participant("payment", saga=...)]'
                raise DeclarationError(where, f"its participants hold {each!r}, which is no Participant", cure)
        if self.tables is not None and not isinstance(self.tables, MetaData):
            shown = getattr(self.tables, "__name__", repr(self.tables))
            cure = "Pass the MetaData of the tables, as in tables=Base.metadata"
            raise DeclarationError(where, f"its tables are {shown}, which is no MetaData", cure)

    def _check_names(self) -> None:
        """Check that each stream of the log has a name of its own: each step's, and each joining compensation's."""
        steps = [step.name for step in self.steps]
        names = [*steps, *(each.name for each in self.compensations if each.signature.is_join)]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            kinds = "two steps" if steps.count(doubled[0]) > 1 else "a compensation that joins, and another function,"
            cure = "Rename one: the name is the fence's key"
            raise DeclarationError(f"Service {self.name!r}", f"{kinds} are named {doubled[0]}", cure)

    def _check_sagas(self) -> None:
        """Check that each saga's name, and each starting event, identifies one saga."""
        sagas = {id(participant.saga): participant.saga for participant in self.participants}.values()
        for one, other in combinations(sagas, 2):
            if one.name == other.name and one != other:
                raise DeclarationError(
                    f"Service {self.name!r}",
                    f"two sagas are named {one.name}",
                    "Rename one, or share one declaration: a saga's identity is its type and its id",
                )
            if one.starts_with is other.starts_with and one != other:
                raise DeclarationError(
                    f"Service {self.name!r}",
                    f"{one.starts_with.__name__} starts two sagas, {one.name} and {other.name}",
                    "Give each a starting event of its own: the event decides which saga a message starts",
                )

    def _check_orchestrators(self) -> None:
        """Check that each coordinated saga has one coordinator here, and no step: both would write the same streams."""
        taken = [participant.saga.name for participant in self.participants]
        for each in self.orchestrators:
            if each.saga.name in taken:
                fault = (
                    f"{each.__name__} coordinates the saga {each.saga.name}, in which the service takes part already"
                )
                cure = "Run the coordinator in a service of its own: its log has a stream for each step"
                raise DeclarationError(f"Service {self.name!r}", fault, cure)
            if each.failed_end is None and each.saga.fails_with.__owner__ != self.name:
                end = each.saga.fails_with
                fault = f"{each.__name__} has no failed_end, and {end.__name__} is {end.__owner__}'s to emit"
                cure = f"Name the step of {end.__owner__} that emits it: `failed_end = SagaStep(...)`"
                raise DeclarationError(f"Service {self.name!r}", fault, cure)
            taken.append(each.saga.name)

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
