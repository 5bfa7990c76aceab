"""The paths that a saga may take through its choreography, and the steps that it may pass by on each.

A step runs on one event and emits one, so no step joins two branches. When the saga reaches a point without a certain
step, that step may still be running, or may be done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import SagaContract


@dataclass(frozen=True, slots=True)
class CompensationPath:
    """A step's refusal on the forward path, and the steps that may be done by then, except those that end the saga."""

    step: Node
    refusal: str
    done: Collection[Node]


@dataclass(frozen=True, slots=True)
class SagaPaths:
    """The paths of one saga."""

    choreography: Choreography
    saga: SagaContract

    def ahead(self, event: str, *, without: Node | None = None) -> list[Node]:
        """Return the steps that follow from an event where no step refuses, as if `without` emitted nothing."""
        return self.choreography.forward(self.saga, since=event, without=(without,) if without else ())

    def endings(self, event: str, *, without: Node | None = None) -> list[Node]:
        """Return the steps that follow from an event and end the saga, as if `without` emitted nothing."""
        return [step for step in self.ahead(event, without=without) if self.is_end(step)]

    def is_end(self, step: Node) -> bool:
        """Whether the success of the step ends the saga."""
        return step.success in (self.saga.completes_with, self.saga.fails_with)

    def events(self) -> list[str]:
        """Return the events of the saga, the starting one first."""
        return list(dict.fromkeys(edge.event for edge in self.choreography.edges(self.saga)))

    def compensation_paths(self) -> Iterator[CompensationPath]:
        """Yield the start of each compensation path, in the order of the steps."""
        start = self.saga.starts_with
        for step in self.ahead(start):
            done = [each for each in self.ahead(start, without=step) if not self.is_end(each)]
            yield from (CompensationPath(step, refusal, done) for refusal in step.refusals)

    def compensation(self, step: Node) -> Node | None:
        """Return the compensation that undoes the step."""
        own = (each for each in self.choreography.nodes_of(self.saga) if each.is_compensation)
        return next((each for each in own if (each.service, each.step) == (step.service, step.step)), None)

    def undoing(self, refusal: str, step: Node) -> Node | None:
        """Return the compensation that undoes the step, if the refusal leads to it."""
        compensation = self.compensation(step)
        return compensation if compensation in self.choreography.reached_from(refusal, self.saga) else None

    def is_passed(self, refusal: str, by: Node, to: Node) -> bool:
        """Whether the refusal leads to the compensation `to` even if `by` has emitted nothing."""
        return to in self.choreography.reached_from(refusal, self.saga, without=(by,))

    def fails(self, *refusals: str, without: Collection[Node]) -> bool:
        """Whether one of the refusals leads to the failed end even if these nodes have emitted nothing."""
        emitted = {
            event
            for refusal in refusals
            for node in self.choreography.reached_from(refusal, self.saga, without=without)
            for event in node.emits
        }
        return self.saga.fails_with in emitted

    def is_lost(self, path: CompensationPath) -> bool:
        """Whether the saga may miss its failed end: refused and fenced steps have nothing to compensate.

        The compensation of a step that refused, or that an abort has fenced, emits nothing. A fenced step has emitted
        its refusal instead.
        """
        steps = [each for each in self.choreography.nodes_of(self.saga) if each.refusals and each not in path.done]
        own = [found for each in (path.step,) if (found := self.compensation(each))]
        fenced = [found for each in steps if (found := self.compensation(each))]
        refusals = (path.refusal, *(each.refusals[0] for each in steps if each != path.step))
        return not (self.fails(path.refusal, without=own) and self.fails(*refusals, without=[*own, *fenced]))

    def fork(self, step: Node) -> str:
        """Return the last event after which the saga may end without the step."""
        around = [each for each in self.events() if step in self.ahead(each) and self.endings(each, without=step)]
        return min(around, key=lambda event: len(self.ahead(event)))
