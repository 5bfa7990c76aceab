"""The declaration of a service: its participants, its tables, and the resources of its steps.

Nothing runs here; the runtime runs a service over a transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from sqlalchemy import MetaData
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit.configuration.settings import Settings
from toolkit.declaration.events import Event, Saga
from toolkit.declaration.middleware import Middleware, check_middleware
from toolkit.declaration.participant import Compensation, Participant, Step
from toolkit.declaration.participant_rules import check_name
from toolkit.declaration.signature import is_coroutine_function
from toolkit.errors import DeclarationError

#: Opens a resource that steps take as a parameter of its type, and closes it when the service stops.
Provider = Callable[[Settings], AbstractAsyncContextManager[Any]]
#: Fills the tables, in a transaction of its own at each start. It must be idempotent.
Seed = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: `saga run` runs one, the embedded transport several in one process.

    - `tables`: the service's own tables, created at the start.
    - `provides`: by type, the resources that steps may take beside event and session, such as a gateway.
    - `seed`: fills the tables at each start; it must be idempotent.
    - `middleware`: functions around each step and compensation, the first one outermost.
    """

    name: str
    participants: Sequence[Participant]
    tables: MetaData | None = None
    provides: Mapping[type, Provider] = field(default_factory=dict)
    seed: Seed | None = None
    middleware: Sequence[Middleware] = ()

    def __post_init__(self) -> None:
        check_name("Service", self.name)
        self._check_names()
        if self.seed is not None and not is_coroutine_function(self.seed):
            raise DeclarationError(
                f"Service {self.name!r}",
                f"its seed {getattr(self.seed, '__name__', self.seed)!r} is not a coroutine function",
                "Declare it as `async def seed(session: AsyncSession) -> None`",
            )
        check_middleware(self.name, self.middleware)
        self._check_sagas()
        handlers: list[Step | Compensation] = [*self.steps, *self.compensations]
        for handler in handlers:
            for name, wanted in handler.signature.resources.items():
                if wanted not in self.provides:
                    raise DeclarationError(
                        f"{handler.function.__module__}.{handler.name}",
                        f"the parameter {name!r} takes a {wanted.__name__}, which {self.name} does not provide",
                        f"Add it: Service(provides={{{wanted.__name__}: how_to_open_one}})",
                    )

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

    @property
    def steps(self) -> list[Step]:
        """The steps of all participants, in the order of their declaration."""
        return [step for participant in self.participants for step in participant.steps]

    @property
    def compensations(self) -> list[Compensation]:
        """The compensations of all participants, in the order of their declaration."""
        return [each for participant in self.participants for each in participant.compensations]

    @property
    def sagas(self) -> list[Saga]:
        """The sagas that the service takes part in."""
        return list({participant.saga.name: participant.saga for participant in self.participants}.values())

    def consumed(self) -> set[type[Event]]:
        """Return the domain events that the service consumes."""
        return {event for participant in self.participants for event in participant.consumed()}

    def emitted(self) -> dict[str, type[Event]]:
        """Return the events that the service may emit, by name."""
        return {event.__name__: event for participant in self.participants for event in participant.emitted()}

    def compensation_events(self) -> set[type[Event]]:
        """Return the events that the service consumes or emits on compensation paths, the failed end included."""
        endings = [step for step in self.steps if step.success is step.saga.fails_with]
        undoing = {event for each in self.compensations for event in (*each.triggers, each.emits)}
        return undoing | {event for step in endings for event in (*step.triggers, step.success)}
