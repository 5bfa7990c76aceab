"""The rules for a choreography whose services are each right: one function per rule, over the graph alone.

In a choreography without findings each event is consumed, and a saga ends once, after all steps that may refuse. Each
refusal leads to the failed end, and the steps before it are undone on the path there, in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import EventContract
from toolkit.declaration.paths import CompensationPath, SagaPaths


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """One fault: the rule, the violation and its cure."""

    rule: str
    message: str
    cure: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}. {self.cure}."


def check(choreography: Choreography) -> list[RuleViolation]:
    """Return the violations, rule by rule."""
    return [violation for rule in RULES for violation in rule(choreography)]


def unconsumed_events(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every event is consumed, unless it is declared optional."""
    consumed = {event for node in choreography.nodes for event in node.triggers}
    for node in choreography.nodes:
        for event in node.emits:
            if event not in consumed and not _contract(choreography, event).optional:
                yield RuleViolation(
                    "unconsumed event",
                    f"{node.name} ({node.service}) emits {event}, and no service consumes it",
                    "Let a step or a compensation run on it, or declare the event with optional=True",
                )


def unemitted_events(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every event that a step or a compensation runs on is emitted, or starts a saga."""
    emitted = {event for node in choreography.nodes for event in node.emits}
    emitted |= {saga.starts_with for saga in choreography.sagas}
    for node in choreography.nodes:
        for event in node.triggers:
            if event not in emitted:
                yield RuleViolation(
                    "unemitted event",
                    f"{node.name} ({node.service}) runs on {event}, and no service emits it",
                    "Return it from a step, or remove it from the parameter's type",
                )


def unreachable_nodes(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every step and compensation is reached from its saga's starting event."""
    for saga in choreography.sagas:
        reached = choreography.reached_from(saga.starts_with, saga)
        for node in choreography.nodes_of(saga):
            if node not in reached:
                yield RuleViolation(
                    "unreachable",
                    f"nothing leads from {saga.starts_with} to {node.name} ({node.service})",
                    f"Let it run on an event that the saga {saga.name} reaches, or delete it",
                )


def unreached_ends(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every saga completes where no step refuses."""
    for paths in _saga_paths(choreography):
        saga = paths.saga
        if not any(step.success == saga.completes_with for step in paths.ahead(saga.starts_with)):
            yield RuleViolation(
                "unreached end",
                f"nothing leads from {saga.starts_with} to {saga.completes_with}, which completes the saga {saga.name}",
                f"Let the last step return {saga.completes_with}",
            )


def lost_refusals(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every refusal leads to the event that fails the saga, without the compensations of refused and fenced steps."""
    for paths in _saga_paths(choreography):
        for path in paths.compensation_paths():
            if paths.is_lost(path):
                yield RuleViolation(
                    "lost refusal",
                    f"{path.refusal} of {_place(path.step)} never leads to {paths.saga.fails_with}",
                    "Let the compensation of the step before run on it, or the step that ends the saga",
                )


def unawaited_steps(choreography: Choreography) -> Iterator[RuleViolation]:
    """No saga ends before a step that may refuse is done."""
    for paths in _saga_paths(choreography):
        steps = dict.fromkeys(step for event in paths.events() for step in paths.ahead(event) if step.refusals)
        for step in steps:
            before = [event for event in paths.events() if step in paths.ahead(event)]
            endings = [end for event in before for end in paths.endings(event, without=step)]
            if endings:
                yield _unawaited(paths, step, endings[0])


def second_ends(choreography: Choreography) -> Iterator[RuleViolation]:
    """No saga ends twice."""
    for paths in _saga_paths(choreography):
        ends = next((found for event in paths.events() if len(found := paths.endings(event)) > 1), [])
        if ends:
            yield RuleViolation(
                "second end",
                f"{' and '.join(map(_place, ends))} both run in the saga {paths.saga.name}, and each ends it",
                "Let one step end the saga, after all steps that may refuse",
            )


def same_ends(choreography: Choreography) -> Iterator[RuleViolation]:
    """A saga in which a step may refuse has two ends."""
    for paths in _saga_paths(choreography):
        saga = paths.saga
        if saga.completes_with == saga.fails_with and any(node.refusals for node in choreography.nodes_of(saga)):
            yield RuleViolation(
                "same end",
                f"{saga.completes_with} ends {saga.name} completed and failed, so a refused saga counts as completed",
                "Declare another event as `fails_with`, emitted by a step once all is undone",
            )


def unreadable_events(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every consumer of an event requires no more fields than its owner declares."""
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
                fault = f"consumes version {event.version}, and {emitted.owner} emits {emitted.version}"
            else:
                continue
            yield RuleViolation(
                "unreadable event",
                f"{name}, as {contract.service} declares it, {fault}",
                "Let both services import one declaration of it",
            )


def foreign_events(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every event is emitted by its owner alone."""
    for node in choreography.nodes:
        for event in node.emits:
            owner = _contract(choreography, event).owner
            if owner != node.service:
                yield RuleViolation(
                    "foreign event",
                    f"{node.name} ({node.service}) emits {event}, which belongs to {owner}",
                    f'Return an event of its own, or declare {event} with owner="{node.service}"',
                )


def uncompensated_steps(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every step that may be done before a refusal is undone after it."""
    for paths in _saga_paths(choreography):
        for node in paths.ahead(paths.saga.starts_with):
            refusals = [path.refusal for path in paths.compensation_paths() if node in path.done]
            if missing := [refusal for refusal in refusals if not paths.undoing(refusal, node)]:
                yield RuleViolation(
                    "uncompensated step",
                    f"{_place(node)} is still done after {_names(missing)}",
                    f"Give it a compensation that is reached from there: @….compensation(of={node.name})",
                )


def early_compensations(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every step is undone after the steps that it led to."""
    for paths in _saga_paths(choreography):
        for path in paths.compensation_paths():
            for first, last in _successions(paths, path):
                undoing, after = paths.undoing(path.refusal, first), paths.undoing(path.refusal, last)
                if undoing and after and paths.is_passed(path.refusal, after, undoing):
                    yield RuleViolation(
                        "early compensation",
                        f"after {path.refusal}, {_place(undoing)} may undo {first.name} before {_place(after)} has "
                        f"undone {last.name}, which it led to",
                        f"Let {undoing.name} run on {after.success} instead of an earlier event",
                    )


def early_ends(choreography: Choreography) -> Iterator[RuleViolation]:
    """Every saga fails after all is undone."""
    for paths in _saga_paths(choreography):
        for path in paths.compensation_paths():
            undoings = [undoing for step in path.done if (undoing := paths.undoing(path.refusal, step))]
            if early := [undoing for undoing in undoings if paths.fails(path.refusal, without=(undoing,))]:
                yield RuleViolation(
                    "early end",
                    f"after {path.refusal}, {paths.saga.fails_with} may end the saga before {_listed(early)} has run",
                    f"Let the step that emits {paths.saga.fails_with} run on {early[0].success} instead",
                )


def _unawaited(paths: SagaPaths, step: Node, end: Node) -> RuleViolation:
    return RuleViolation(
        "unawaited step",
        f"{paths.fork(step)} starts two branches, and {_place(end)} may end the saga {paths.saga.name} by "
        f"{end.success} before {_place(step)} has answered; {_names(step.refusals)} would be too late to undo anything",
        f"Chain the branches, so that the path to {end.name} leads through {step.success}, "
        f"or let {step.name} return no refusal",
    )


def _successions(paths: SagaPaths, path: CompensationPath) -> Iterator[tuple[Node, Node]]:
    """Yield pairs of steps that may be done, where the first led to the second."""
    for first in path.done:
        yield from ((first, each) for each in paths.ahead(first.success) if each in path.done and each != first)


def _saga_paths(choreography: Choreography) -> list[SagaPaths]:
    return [SagaPaths(choreography, saga) for saga in choreography.sagas]


def _place(node: Node) -> str:
    return f"{node.name} ({node.service})"


def _listed(nodes: Iterable[Node]) -> str:
    return ", ".join(_place(node) for node in nodes)


def _contract(choreography: Choreography, event: str) -> EventContract:
    found = choreography.event(event)
    assert found is not None  # noqa: S101 -- for the type checker: a contract declares each event that it emits
    return found


def _names(events: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(events))


RULES: tuple[Callable[[Choreography], Iterator[RuleViolation]], ...] = (
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
    uncompensated_steps,
    early_compensations,
    early_ends,
)
