"""One saga as the explorer sees it: steps with their slots, what undoes them, and the answers that come from outside.

A slot takes one of several events; a step or a compensation runs once each of its slots holds one. An external step is
an ordinary one here: its outcome is one transaction, and what its claim adds is that a fence waits for this outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import SagaContract

#: The events that fill one slot, each by itself.
Slot = frozenset[str]


@dataclass(frozen=True, slots=True)
class Undoing:
    """A step's compensation: its name, its slots, and the event that it emits."""

    name: str
    slots: tuple[Slot, ...]
    event: str


@dataclass(frozen=True, slots=True)
class GraphStep:
    """A step; `has_deadline`: it may refuse as soon as one of its slots is filled."""

    name: str
    service: str
    slots: tuple[Slot, ...]
    success: str
    refusals: tuple[str, ...] = ()
    undoing: Undoing | None = None
    has_deadline: bool = False

    @property
    def place(self) -> str:
        """The function, and the service that declares it."""
        return f"{self.name} ({self.service})"

    @property
    def undoing_place(self) -> str:
        """The compensation's function, and the service that declares it."""
        return f"{self.undoing.name} ({self.service})" if self.undoing else self.place

    @property
    def failures(self) -> tuple[str, ...]:
        """The events by which the step is over for good in a failed saga: a refusal, or its compensation's event."""
        return (*self.refusals, *((self.undoing.event,) if self.undoing else ()))

    @property
    def emits(self) -> tuple[str, ...]:
        """All events that the step and its compensation may emit."""
        return (self.success, *self.failures)


@dataclass(frozen=True)
class SagaGraph:
    """A saga: the event that starts it, the two that end it, its steps, and the events that people send."""

    name: str
    starts_with: str
    completes_with: str
    fails_with: str
    steps: tuple[GraphStep, ...]
    people: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """The events that end the saga."""
        return (self.completes_with, self.fails_with)

    @cached_property
    def forward(self) -> tuple[GraphStep, ...]:
        """The steps that run where no step refuses, in order."""
        return self.completed_without(())

    @cached_property
    def undoable(self) -> frozenset[GraphStep]:
        """The steps that may not stand in a failed saga: all but those that only lead from a refusal to its end."""
        leading = (step for step in self.steps if any(self.completes_with == each.success for each in self.after(step)))
        found = (*self.forward, *leading, *(step for step in self.steps if step.undoing))
        return frozenset(step for step in found if step.success not in self.ends)

    def completed_without(self, without: Collection[GraphStep]) -> tuple[GraphStep, ...]:
        """Return the steps that can complete, in order, if no step refuses and these do not run."""
        sent, found = {self.starts_with, *self.people}, dict[GraphStep, None]()
        while new := [each for each in self.steps if each not in found and each not in without and fills(each, sent)]:
            found.update(dict.fromkeys(new))
            sent.update(each.success for each in new)
        return tuple(found)

    @cached_property
    def possible(self) -> frozenset[str]:
        """All events that may be sent in some interleaving without an abort."""
        sent = {self.starts_with, *self.people}
        while new := {event for each in self.steps for event in _emitted(each, sent)} - sent:
            sent |= new
        return frozenset(sent)

    def after(self, step: GraphStep) -> frozenset[GraphStep]:
        """Return the steps that may run because this one completed, on the way forward."""
        found, waiting = set[GraphStep](), [step]
        while waiting:
            success = waiting.pop().success
            new = [each for each in self.steps if each not in found and any(success in slot for slot in each.slots)]
            found.update(new)
            waiting += new
        return frozenset(found)

    def reached(self, events: Iterable[str]) -> frozenset[str]:
        """Return these events, and all that may follow from them, as if each other event had come."""
        found, waiting = set[str](), list(events)
        while waiting:
            if (event := waiting.pop()) not in found:
                found.add(event)
                waiting += self._emitted_on(event)
        return frozenset(found)

    def _emitted_on(self, event: str) -> Iterator[str]:
        for step in self.steps:
            if any(event in slot for slot in step.slots):
                yield from (step.success, *step.refusals)
            if step.undoing and any(event in slot for slot in step.undoing.slots):
                yield step.undoing.event


def fills(step: GraphStep | Undoing, sent: Collection[str]) -> bool:
    """Whether these events fill each slot."""
    return all(not slot.isdisjoint(sent) for slot in step.slots)


def _emitted(step: GraphStep, sent: Collection[str]) -> Iterator[str]:
    if fills(step, sent):
        yield from (step.success, *step.refusals)
    if step.undoing and fills(step.undoing, sent):
        yield step.undoing.event


def graph_of(choreography: Choreography, saga: SagaContract) -> SagaGraph:
    """Return the graph of one saga of a choreography."""
    nodes = choreography.nodes_of(saga)
    undoings = {(node.service, node.step): _undoing(node) for node in nodes if node.is_compensation}
    steps = [_step(node, undoings.get((node.service, node.name))) for node in nodes if not node.is_compensation]
    return SagaGraph(
        name=saga.name,
        starts_with=saga.starts_with,
        completes_with=saga.completes_with,
        fails_with=saga.fails_with,
        steps=tuple(steps),
        people=tuple(choreography.answers(saga)),
    )


def _step(node: Node, undoing: Undoing | None) -> GraphStep:
    return GraphStep(
        name=node.name,
        service=node.service,
        slots=_slots(node),
        success=node.success,
        refusals=node.refusals,
        undoing=undoing,
        has_deadline=node.handler.timeout is not None and bool(node.refusals),
    )


def _undoing(node: Node) -> Undoing:
    return Undoing(node.name, _slots(node), node.success)


def _slots(node: Node) -> tuple[Slot, ...]:
    return tuple(frozenset(slot.events) for slot in node.handler.slots)
