"""A world for the tests of sagas: services in one process, and a clock that skips time.

Every run of a test is the same: the services' loops, databases and deadlines are those of production, in one thread,
and time passes only where the test says so.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

from toolkit.declaration.events import Event
from toolkit.declaration.service import Service
from toolkit.errors import WorldError
from toolkit.protocol.keys import SagaKey
from toolkit.testing.cast import Cast, service_of
from toolkit.testing.memory import memory_directory
from toolkit.testing.outside_system import OutsideSystem
from toolkit.testing.resources import check_provided, made, provider_of
from toolkit.testing.samples import sample
from toolkit.testing.scripted_steps import ScriptedSteps
from toolkit.testing.world.actions import Actions
from toolkit.testing.world.expectations import Expectations
from toolkit.testing.world.running import RunningWorld

T = TypeVar("T")


class SagaWorld:
    """Runs services, each on a database of its own, and tells what happens as given, when and then.

        with SagaWorld(hotel, airline, car_rental, agency) as world:
            world.when(TripRequested(...))
            world.then.completed()

    - `services`: by declaration, or by a module with the attribute `app`.
    - `played`: services whose own functions do not run: a step emits a sample, or refuses if `given.refuses` says so.
    - `provides`: by type, the objects that steps take in place of their services'; a class or a function makes one.
    - `samples`: the events that played steps emit, for types whose schemas do not tell which values are valid.
    - `settings`: fields of `Settings` that differ from the world's own.

    An event for a service that is not part of the world leaves it, and counts as emitted.

    Raises:
        WorldError: a service is none, or no service takes a provided object.
    """

    def __init__(
        self,
        *services: Service | ModuleType,
        played: Sequence[Service | ModuleType] = (),
        provides: Mapping[type, Any] | None = None,
        samples: Iterable[Event] = (),
        settings: Mapping[str, Any] | None = None,
        directory: Path | None = None,
    ) -> None:
        own, others = [service_of(each) for each in services], [service_of(each) for each in played]
        self._cast = Cast([*own, *others])
        self._samples = {type(each): each for each in samples}
        check_provided(provides or {}, own)
        provided = {kind: made(each) for kind, each in (provides or {}).items()}
        self._outside = [each for each in provided.values() if isinstance(each, OutsideSystem)]
        self._steps = ScriptedSteps([*own, *others], self._event_of)
        providers = {kind: provider_of(each) for kind, each in provided.items()}
        running = [*(self._steps.steered(each, providers) for each in own), *map(self._steps.played, others)]
        self._saga: SagaKey | None = None
        self._since = 0
        self._from_outside: set[str] = set()
        with ExitStack() as opened:  # closed at once if the services don't start
            directory = directory or opened.enter_context(memory_directory())
            self._world = RunningWorld(running, directory, settings or {})
            opened.callback(self._world.close)
            self._resources = opened.pop_all()
        self.given = Actions(self._world, self._cast, self._steps, self._was_given)
        self.when = Actions(self._world, self._cast, self._steps, self._happened)

    def __enter__(self) -> Self:
        """Return the world; its services run."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the services."""
        self.close()

    @property
    def then(self) -> Expectations:
        """What is expected of the saga of the last event.

        Raises:
            WorldError: no event was given.
        """
        if self._saga is None:
            raise WorldError("nothing has happened to a saga: call world.when(event) first")
        return self._expectations(self._saga)

    def saga(self, saga_id: str, saga_type: str | None = None) -> Expectations:
        """Return what is expected of another saga than that of the last event."""
        return self._expectations((saga_type or next(iter(self._cast.sagas)), saga_id))

    @property
    def databases(self) -> dict[str, str]:
        """The URLs of the databases, by service."""
        return self._world.databases

    def rows(self, model: type[T], **where: Any) -> list[T]:
        """Return the rows of a service's table with these values, in the order of their keys.

        Raises:
            WorldError: no service of the world has the table.
        """
        return self._world.rows(model, where)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the world's event loop, a check of the accounts say, and return its result."""
        return self._world.run(coroutine)

    def close(self) -> None:
        """Stop the services, and delete their databases."""
        self._resources.close()

    def _expectations(self, saga: SagaKey) -> Expectations:
        sent = [each for each in self._world.emitted[self._since :] if each.correlation_id == saga[1]]
        return Expectations(
            saga,
            evidence=self._world.evidence(),
            emitted=sent,
            from_outside=self._from_outside,
            rows=self.rows,
            now=self._world.clock.now(),
            unused=[line for each in self._outside for line in each.unused],
        )

    def _happened(self, saga: SagaKey | None = None, event: type[Event] | None = None) -> None:
        self._saga = saga or self._saga
        if event:
            self._from_outside.add(event.__name__)

    def _was_given(self, saga: SagaKey | None = None, event: type[Event] | None = None) -> None:
        self._happened(saga, event)
        self._since = len(self._world.emitted)

    def _event_of(self, kind: type[Event], cause: Event) -> Event:
        """Return the event that a played step emits: the sample that was given, or one like its cause."""
        saga_type, saga_id = self._cast.saga_of(cause)
        facts = {self._cast.sagas[saga_type].id_field: saga_id, "reason": "the test says so"}
        known = {name: fact for name, fact in facts.items() if name in kind.model_fields}
        if kind in self._samples:
            return self._samples[kind].model_copy(update=known)
        return sample(kind, like=cause, **known)
