"""The view of a coordinator that a service has; `toolkit.orchestration` declares coordinators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from toolkit.declaration.events import Event, Saga


class Orchestrator(Protocol):
    """A coordinator that a service runs.

    - `name`: its own stream in the saga log.
    - `events`: the events that it may receive, and send on.
    """

    saga: ClassVar[Saga]
    events: ClassVar[tuple[type[Event], ...]]
    name: ClassVar[str]

    @classmethod
    def asked_at_failure(cls) -> Any:
        """Return the step that announces the saga's failure, or None."""
        ...

    def groups_for(self, data: Any) -> Sequence[Sequence[Any]]:
        """Return the steps of the saga that this event starts, in groups that are asked at once."""
        ...
