"""What is wrong with a choreography although each service is right: one function per rule, over the graph alone.

A choreography without findings can't lose its way: each event is heard, each refusal leads to the failed end, and
what was done before it is undone on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from toolkit.contract import EventContract
from toolkit.graph import Choreography, Node


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: the rule, what breaks it, and what to do about it."""

    rule: str
    message: str
    cure: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}. {self.cure}."


def check(choreography: Choreography) -> list[Finding]:
    """Return what is wrong, rule by rule."""
    return [finding for rule in RULES for finding in rule(choreography)]


def unheard_events(choreography: Choreography) -> Iterator[Finding]:
    """Every event is heard by somebody, unless it is declared optional."""
    heard = {event for node in choreography.nodes for event in node.triggers}
    for node in choreography.nodes:
        for event in node.emits:
            if event not in heard and not _contract(choreography, event).optional:
                yield Finding(
                    "unheard event",
                    f"{node.name} ({node.service}) emits {event}, and nobody listens to it",
                    "Let a step or a compensation take it, or declare the event with optional=True",
                )


def unemitted_events(choreography: Choreography) -> Iterator[Finding]:
    """Every event that somebody waits for is emitted, or starts a saga."""
    told = {event for node in choreography.nodes for event in node.emits}
    told |= {saga.starts_with for saga in choreography.sagas}
    for node in choreography.nodes:
        for event in node.triggers:
            if event not in told:
                yield Finding(
                    "unemitted event",
                    f"{node.name} ({node.service}) waits for {event}, which nobody emits",
                    "Return it from a step, or take it out of the parameter's type",
                )


def unreachable_nodes(choreography: Choreography) -> Iterator[Finding]:
    """Every step and compensation is reached from its saga's starting event."""
    for saga in choreography.sagas:
        reached = choreography.reached_from(saga.starts_with, saga)
        for node in choreography.nodes_of(saga):
            if node not in reached:
                yield Finding(
                    "unreachable",
                    f"nothing leads from {saga.starts_with} to {node.name} ({node.service})",
                    f"Let it listen to an event that the saga {saga.name} comes by, or delete it",
                )


def lost_refusals(choreography: Choreography) -> Iterator[Finding]:
    """Every refusal leads to the event that fails the saga."""
    for node in choreography.nodes:
        end = node.saga.fails_with
        for refusal in node.refusals:
            if end not in choreography.events_after(refusal, node.saga):
                yield Finding(
                    "lost refusal",
                    f"{refusal} of {node.name} ({node.service}) never leads to {end}",
                    "Let the compensation of the step before take it, or the step that ends the saga",
                )


def foreign_events(choreography: Choreography) -> Iterator[Finding]:
    """Every event is emitted by the service that owns it, and by no other."""
    for node in choreography.nodes:
        for event in node.emits:
            owner = _contract(choreography, event).owner
            if owner != node.service:
                yield Finding(
                    "foreign event",
                    f"{node.name} ({node.service}) emits {event}, which belongs to {owner}",
                    f'Return an event of its own, or declare {event} with owner="{node.service}"',
                )


def standing_steps(choreography: Choreography) -> Iterator[Finding]:
    """Every step before a refusal is undone on the way back from it."""
    for saga in choreography.sagas:
        forward = choreography.forward(saga)
        for index, node in enumerate(forward):
            refusals = [refusal for later in forward[index + 1 :] for refusal in later.refusals]
            if standing := [each for each in refusals if not _undoes(choreography.reached_from(each, saga), node)]:
                yield Finding(
                    "standing step",
                    f"{node.name} ({node.service}) is still done after {_names(standing)}",
                    f"Give it a compensation that the way back from there leads to: @….compensation(of={node.name})",
                )


def _contract(choreography: Choreography, event: str) -> EventContract:
    found = choreography.event(event)
    assert found is not None  # noqa: S101 -- tells the type checker that whoever emits an event declares it
    return found


def _undoes(way_back: Iterable[Node], node: Node) -> bool:
    return any(each.is_compensation and (each.service, each.step) == (node.service, node.name) for each in way_back)


def _names(events: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(events))


RULES: tuple[Callable[[Choreography], Iterator[Finding]], ...] = (
    unheard_events,
    unemitted_events,
    unreachable_nodes,
    lost_refusals,
    foreign_events,
    standing_steps,
)
