"""The plan of one saga, as the coordinator's log keeps it from the saga's start: a deployment does not change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from pydantic import TypeAdapter

from toolkit.errors import StepError
from toolkit.orchestration.course import Course, States
from toolkit.orchestration.orchestrator import SagaStep


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step by its name in its service, and how long its reply may take."""

    name: str
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The groups of steps, in the order in which they are asked, and the step that announces a failure."""

    groups: tuple[tuple[PlannedStep, ...], ...]
    failed_end: PlannedStep | None = None

    @classmethod
    def of(
        cls,
        groups: Sequence[Sequence[SagaStep]],
        *,
        failed_end: SagaStep | None,
        timeouts: Mapping[str, timedelta],
        own: str,
    ) -> Plan:
        """Return the plan of these steps; `timeouts` override the declared ones, `own` is the coordinator's own stream.

        Raises:
            StepError: there are no steps, or two have one name.
        """

        def planned(step: SagaStep) -> PlannedStep:
            return PlannedStep(step.name, timeouts.get(step.name, step.timeout))

        for before, group in pairwise(groups):
            if len(before) > 1 and (without := [step.name for step in group if step.action is None]):
                several = " and ".join(step.name for step in before)
                raise StepError(f"{without[0]} comes after {several}: give it an action, as it has no one step before")
        found = tuple(tuple(map(planned, group)) for group in groups)
        names = [own, *(step.name for group in found for step in group), *([failed_end.name] if failed_end else ())]
        if not found or len(names) != len(set(names)):
            fault = "two steps of one name" if found else "no steps"
            raise StepError(f"define_steps of {own} returned {fault}: give each step once")
        return cls(found, PlannedStep(failed_end.name) if failed_end else None)

    @classmethod
    def without_steps(cls, failed_end: SagaStep | None) -> Plan:
        """Return the plan of a saga that was aborted before it began."""
        return cls((), PlannedStep(failed_end.name) if failed_end else None)

    @classmethod
    def read(cls, text: str) -> Plan:
        """Return the plan from the log's text."""
        return _ADAPTER.validate_json(text)

    def text(self) -> str:
        """Return the plan as the log keeps it."""
        return _ADAPTER.dump_json(self, exclude_none=True).decode()

    @property
    def steps(self) -> dict[str, PlannedStep]:
        """All steps by name."""
        ending = (self.failed_end,) if self.failed_end else ()
        return {step.name: step for step in (*(step for group in self.groups for step in group), *ending)}

    def before(self, name: str) -> str | None:
        """Return the step whose success this step takes: the only one of the group before; None for the first group."""
        groups = [tuple(step.name for step in group) for group in self.groups]
        index = next(index for index, group in enumerate(groups) if name in group)
        return groups[index - 1][0] if index else None

    @property
    def is_parallel(self) -> bool:
        """Whether some steps are asked at once."""
        return any(len(group) > 1 for group in self.groups)

    def course(self, states: States) -> Course:
        """Return the saga's course from these states of its steps."""
        names = [[step.name for step in group] for group in self.groups]
        return Course(names, states, failed_end=self.failed_end.name if self.failed_end else None)


_ADAPTER: TypeAdapter[Plan] = TypeAdapter(Plan)
