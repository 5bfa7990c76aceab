"""A coordinator's plan as the explorer sees it: the steps that it asks, each with what its service declares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from toolkit.protocol.fence import SagaState


@dataclass(frozen=True, slots=True)
class AskedStep:
    """A step of another service.

    - `undoing`, `undone`: its compensation, and the event that this emits; None where nothing can undo the step.
    - `has_timeout`: the coordinator gives it up if it does not reply in time; without one, on an abort alone.
    """

    name: str
    service: str
    success: str
    refusals: tuple[str, ...] = ()
    undoing: str | None = None
    undone: str | None = None
    has_timeout: bool = False

    @property
    def place(self) -> str:
        """The function, and the service that declares it."""
        return f"{self.name} ({self.service})"

    @property
    def is_final(self) -> bool:
        """Whether nothing can undo it."""
        return self.undone is None


@dataclass(frozen=True)
class CoordinatedPlan:
    """A plan: groups of steps that are asked at once, in order, and the step that announces the failure.

    - `coordinator`: the service that asks them.
    - `end_takes`: the events that the failed end takes; None where the coordinator builds its event.
    - `owns`: the ends that are the coordinator's own events, so that it may emit them itself.
    """

    saga: str
    coordinator: str
    starts_with: str
    completes_with: str
    fails_with: str
    groups: tuple[tuple[AskedStep, ...], ...]
    failed_end: AskedStep | None = None
    end_takes: frozenset[str] | None = None
    owns: frozenset[str] = frozenset()

    @property
    def planned(self) -> tuple[AskedStep, ...]:
        """The steps that the plan asks one after the other, or at once."""
        return tuple(step for group in self.groups for step in group)

    @cached_property
    def steps(self) -> tuple[AskedStep, ...]:
        """All steps; the failed end is the last one."""
        return (*self.planned, *((self.failed_end,) if self.failed_end else ()))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each step, by its name."""
        return {step.name: number for number, step in enumerate(self.steps)}

    @cached_property
    def names(self) -> list[list[str]]:
        """The names of the groups' steps."""
        return [[step.name for step in group] for group in self.groups]

    @cached_property
    def _starts(self) -> list[int]:
        """The number of the first step in each planned step's group."""
        firsts = accumulate((len(group) for group in self.groups), initial=0)
        return [first for first, group in zip(firsts, self.groups, strict=False) for _ in group]

    @property
    def is_parallel(self) -> bool:
        """Whether some steps are asked at once."""
        return any(len(group) > 1 for group in self.groups)

    def earlier(self, number: int) -> range:
        """Return the numbers of the steps in the groups before a planned step's own one."""
        return range(self._starts[number])

    def later(self, number: int) -> range:
        """Return the numbers of the steps in the groups after a planned step's own one."""
        first = self._starts[number]
        return range(first + self._starts.count(first), len(self._starts))

    def end_event(self, end: SagaState) -> str:
        """Return the event that ends the saga so."""
        return self.completes_with if end is SagaState.COMPLETED else self.fails_with

    def does_end_take(self, event: str) -> bool:
        """Whether the failed end can be asked with this event."""
        return self.end_takes is None or event in self.end_takes
