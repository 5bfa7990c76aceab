"""What is wrong with a choreography although each service is right: one function per rule, over the graph alone.

A choreography without findings can't lose its way: each event is heard, the saga ends once and waits for what may still
refuse, each refusal leads to the failed end, and what was done before it is undone on the way, in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import EventContract
from toolkit.declaration.paths import CompensationPath, SagaPaths


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


def unconsumed_events(choreography: Choreography) -> Iterator[Finding]:
    """Every event is heard by somebody, unless it is declared optional."""
    consumed = {event for node in choreography.nodes for event in node.triggers}
    for node in choreography.nodes:
        for event in node.emits:
            if event not in consumed and not _contract(choreography, event).optional:
                yield Finding(
                    "unconsumed event",
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


def unreached_ends(choreography: Choreography) -> Iterator[Finding]:
    """Every saga completes where no step refuses."""
    for ways in _ways(choreography):
        saga = ways.saga
        if not any(step.success == saga.completes_with for step in ways.ahead(saga.starts_with)):
            yield Finding(
                "unreached end",
                f"nothing leads from {saga.starts_with} to {saga.completes_with}, which completes the saga {saga.name}",
                f"Let the last step return {saga.completes_with}",
            )


def lost_refusals(choreography: Choreography) -> Iterator[Finding]:
    """Every refusal leads to the event that fails the saga, past what has refused or was fenced itself."""
    for ways in _ways(choreography):
        for way in ways.back():
            if ways.is_lost(way):
                yield Finding(
                    "lost refusal",
                    f"{way.refusal} of {_place(way.step)} never leads to {ways.saga.fails_with}",
                    "Let the compensation of the step before take it, or the step that ends the saga",
                )


def unawaited_steps(choreography: Choreography) -> Iterator[Finding]:
    """No saga ends while a step is under way that may refuse."""
    for ways in _ways(choreography):
        steps = dict.fromkeys(step for event in ways.events() for step in ways.ahead(event) if step.refusals)
        for step in steps:
            endings = [
                end for event in ways.events() if step in ways.ahead(event) for end in ways.endings(event, without=step)
            ]
            if endings:
                yield _unawaited(ways, step, endings[0])


def second_ends(choreography: Choreography) -> Iterator[Finding]:
    """No saga ends twice."""
    for ways in _ways(choreography):
        ends = next((found for event in ways.events() if len(found := ways.endings(event)) > 1), [])
        if ends:
            yield Finding(
                "second end",
                f"{' and '.join(map(_place, ends))} both run in the saga {ways.saga.name}, and each ends it",
                "Let one step end the saga, after all that it has to wait for",
            )


def same_ends(choreography: Choreography) -> Iterator[Finding]:
    """A saga in which a step may refuse has two ends."""
    for ways in _ways(choreography):
        saga = ways.saga
        if saga.completes_with == saga.fails_with and any(node.refusals for node in choreography.nodes_of(saga)):
            yield Finding(
                "same end",
                f"{saga.completes_with} ends {saga.name} completed and failed, so a refused saga counts as completed",
                "Give it another event for `fails_with`, which a step emits once all is undone",
            )


def unreadable_events(choreography: Choreography) -> Iterator[Finding]:
    """Every service that takes an event requires no more of it than its owner declares."""
    for contract in choreography.contracts:
        taken = {event for handler in contract.handlers for event in handler.triggers}
        for name in sorted(taken):
            event, emitted = contract.events.get(name), choreography.event(name)
            if event is None or emitted is None:
                continue
            required = set(event.json_schema.get("required", ()))
            if missing := sorted(required - set(emitted.json_schema.get("properties", {}))):
                fault = f"requires {', '.join(missing)}, which it does not have in {emitted.owner}"
            elif event.version != emitted.version:
                fault = f"takes version {event.version}, and {emitted.owner} emits {emitted.version}"
            else:
                continue
            yield Finding(
                "unreadable event",
                f"{name}, as {contract.service} declares it, {fault}",
                "Let both import one declaration of it",
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
    """Every step that may be done before a refusal is undone on the way back from it."""
    for ways in _ways(choreography):
        for node in ways.ahead(ways.saga.starts_with):
            refusals = [way.refusal for way in ways.back() if node in way.done]
            if standing := [refusal for refusal in refusals if not ways.undoing(refusal, node)]:
                yield Finding(
                    "standing step",
                    f"{_place(node)} is still done after {_names(standing)}",
                    f"Give it a compensation that the way back from there leads to: @….compensation(of={node.name})",
                )


def early_compensations(choreography: Choreography) -> Iterator[Finding]:
    """Every step is undone after the steps that followed from it."""
    for ways in _ways(choreography):
        for way in ways.back():
            for first, last in _successions(ways, way):
                undoing, after = ways.undoing(way.refusal, first), ways.undoing(way.refusal, last)
                if undoing and after and ways.is_passed(way.refusal, after, undoing):
                    yield Finding(
                        "early compensation",
                        f"after {way.refusal}, {_place(undoing)} may undo {first.name} before {_place(after)} has "
                        f"undone {last.name}, which followed from it",
                        f"Let {undoing.name} run on {after.success} instead of what comes before it",
                    )


def early_ends(choreography: Choreography) -> Iterator[Finding]:
    """Every saga fails after all is undone."""
    for ways in _ways(choreography):
        for way in ways.back():
            undoings = [undoing for step in way.done if (undoing := ways.undoing(way.refusal, step))]
            if early := [undoing for undoing in undoings if ways.fails(way.refusal, without=(undoing,))]:
                yield Finding(
                    "early end",
                    f"after {way.refusal}, {ways.saga.fails_with} may end the saga before {_listed(early)} has run",
                    f"Let the step that emits {ways.saga.fails_with} run on {early[0].success} instead",
                )


def _unawaited(ways: SagaPaths, step: Node, end: Node) -> Finding:
    return Finding(
        "unawaited step",
        f"{ways.fork(step)} starts two branches, and {_place(end)} may end the saga {ways.saga.name} by {end.success} "
        f"while {_place(step)} has not answered; {_names(step.refusals)} would come too late, and undo nothing",
        f"Chain the branches, so that the way to {end.name} leads through {step.success}, "
        f"or let {step.name} return no refusal",
    )


def _successions(ways: SagaPaths, way: CompensationPath) -> Iterator[tuple[Node, Node]]:
    """Yield the pairs of steps, of those that may be done, of which the second followed from the first."""
    for first in way.done:
        yield from ((first, each) for each in ways.ahead(first.success) if each in way.done and each != first)


def _ways(choreography: Choreography) -> list[SagaPaths]:
    return [SagaPaths(choreography, saga) for saga in choreography.sagas]


def _place(node: Node) -> str:
    return f"{node.name} ({node.service})"


def _listed(nodes: Iterable[Node]) -> str:
    return ", ".join(_place(node) for node in nodes)


def _contract(choreography: Choreography, event: str) -> EventContract:
    found = choreography.event(event)
    assert found is not None  # noqa: S101 -- tells the type checker that whoever emits an event declares it
    return found


def _names(events: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(events))


RULES: tuple[Callable[[Choreography], Iterator[Finding]], ...] = (
    unconsumed_events,
    unemitted_events,
    unreachable_nodes,
    unreached_ends,
    lost_refusals,
    unawaited_steps,
    second_ends,
    same_ends,
    unreadable_events,
    foreign_events,
    standing_steps,
    early_compensations,
    early_ends,
)
