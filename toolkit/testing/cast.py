"""The sagas of the services of a test, and the events that belong to each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from toolkit.declaration.events import Event, Saga
from toolkit.declaration.service import Service
from toolkit.errors import WorldError
from toolkit.protocol.keys import SagaKey

#: A step or compensation: its function, or the name of it.
Named = str | Callable[..., Any]


class Cast:
    """The sagas of the services of a world, and the events that belong to each."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.sagas: dict[str, Saga] = {}
        self.events: dict[str, set[type[Event]]] = {}
        for service in services:
            for saga in service.sagas:
                self.sagas[saga.name] = saga
                own = [each for each in service.participants if each.saga.name == saga.name]
                known = {event for each in own for event in (*each.consumed(), *each.emitted())}
                of_coordinators = (each.events for each in service.orchestrators if each.saga.name == saga.name)
                known |= {saga.starts_with, *(event for events in of_coordinators for event in events)}
                self.events.setdefault(saga.name, set()).update(known)

    def saga_of(self, event: Event) -> SagaKey:
        """Return the type and the id of the saga that an event belongs to.

        Raises:
            WorldError: no saga has such an event, or several have.
        """
        named = [name for name, events in self.events.items() if type(event) in events]
        kind = type(event).__name__
        if len(named) != 1:
            fault = f"the sagas {', '.join(named)} have" if named else "no saga of the world has"
            raise WorldError(f"{fault} an event {kind}: the world has the sagas {', '.join(self.sagas)}")
        (name,) = named
        return name, str(getattr(event, self.sagas[name].id_field))

    def handler(self, named: Named) -> str:
        """Return the name of a step or a compensation."""
        return named if isinstance(named, str) else named.__name__


def service_of(named: Service | ModuleType) -> Service:
    """Return a service, or the one that a module has as its `app`.

    Raises:
        WorldError: it is neither.
    """
    found = getattr(named, "app", None) if isinstance(named, ModuleType) else named
    if not isinstance(found, Service):
        cure = "pass a Service, or the module `app` of a service's package"
        raise WorldError(f"{getattr(named, '__name__', repr(named))} is no service: {cure}")
    return found
