"""The rules for a choreography that need no interleaving: one function per rule, each with a cure of its own.

Whether each interleaving of a saga ends well is for the explorer; it would find most of these faults, too, but far from
the declaration that has to change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from toolkit.checker.findings import Finding
from toolkit.checker.graph import SagaGraph, Slot, graph_of
from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import EventContract


def broken_rules(choreography: Choreography, *, coordinated: Collection[str] = ()) -> list[Finding]:
    """Return the violations, rule by rule; of `coordinated` sagas those of the rules that hold under any plan."""
    found = ((rule, finding) for rule in RULES for finding in rule(choreography))
    return [finding for rule, finding in found if rule in UNDER_ANY_PLAN or finding.saga not in coordinated]


def unconsumed_events(choreography: Choreography) -> Iterator[Finding]:
    """Every event is consumed, unless it is declared optional."""
    consumed = {event for node in choreography.nodes for event in node.triggers}
    for node in choreography.nodes:
        for event in node.emits:
            if event not in consumed and not _contract(choreography, event).optional:
                yield _at(
                    node,
                    "unconsumed event",
                    f"{_place(node)} emits {event}, and no service consumes it",
                    "Let a step or a compensation run on it, or declare the event with optional=True",
                )


def unemitted_events(choreography: Choreography) -> Iterator[Finding]:
    """Every event that a step or a compensation runs on is emitted, starts a saga, or is an answer."""
    emitted = {event for node in choreography.nodes for event in node.emits}
    emitted |= {saga.starts_with for saga in choreography.sagas}
    for node in choreography.nodes:
        for event in node.triggers:
            if event not in emitted and not choreography.is_answer(event):
                yield _at(
                    node,
                    "unemitted event",
                    f"{_place(node)} runs on {event}, and no service emits it",
                    "Return it from a step, or remove it from the parameter's type",
                )


def unreachable_nodes(choreography: Choreography) -> Iterator[Finding]:
    """Every step and compensation is reached from its saga's starting event: each of its slots can be filled."""
    for graph, nodes in _graphs(choreography):
        slots = {(step.service, step.name): step.slots for step in graph.steps}
        slots |= {(step.service, step.undoing.name): step.undoing.slots for step in graph.steps if step.undoing}
        for node in nodes:
            own = slots[node.service, node.name]
            empty = [slot for slot in own if slot.isdisjoint(graph.possible)]
            if empty:
                waiting = f", which waits for {_types(empty)}" if len(own) > 1 else ""
                yield _at(
                    node,
                    "unreachable",
                    f"nothing leads from {graph.starts_with} to {_place(node)}{waiting}",
                    f"Let it run on an event that the saga {graph.name} reaches, or delete it",
                )


def unreached_ends(choreography: Choreography) -> Iterator[Finding]:
    """Every saga completes where no step refuses."""
    for graph, nodes in _graphs(choreography):
        if not any(step.success == graph.completes_with for step in graph.forward):
            last = [(step.service, step.name) for step in graph.forward[-1:]]
            node = next((each for each in nodes if (each.service, each.name) in last), nodes[0])
            yield _at(
                node,
                "unreached end",
                f"nothing leads from {graph.starts_with} to {graph.completes_with}, which completes {graph.name}",
                f"Let the last step return {graph.completes_with}",
            )


def silent_ends(choreography: Choreography) -> Iterator[Finding]:
    """Every event that ends a saga is the success of a step: refusals and compensations end none."""
    for graph, nodes in _graphs(choreography):
        for node in nodes:
            ends = [event for event in (node.emits if node.is_compensation else node.refusals) if event in graph.ends]
            if ends:
                yield _at(
                    node,
                    "silent end",
                    f"{_place(node)} emits {ends[0]}, which ends {graph.name} only as the success of a step",
                    f"Let it emit another event, and a step that runs on this one return {ends[0]}",
                )


def same_ends(choreography: Choreography) -> Iterator[Finding]:
    """A saga in which a step may refuse has two ends."""
    for graph, nodes in _graphs(choreography):
        refusing = next((node for node in nodes if node.refusals), None)
        if graph.completes_with == graph.fails_with and refusing:
            yield _at(
                refusing,
                "same end",
                f"{graph.completes_with} ends {graph.name} completed and failed, so a refused saga counts as completed",
                "Declare another event as `fails_with`, emitted by a step once all is undone",
            )


def unreadable_events(choreography: Choreography) -> Iterator[Finding]:
    """Every consumer of an event requires no more fields than its owner declares."""
    for node in choreography.nodes:
        contract = next(each for each in choreography.contracts if each.service == node.service)
        for name in node.triggers:
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
            yield _at(
                node,
                "unreadable event",
                f"{name}, as {contract.service} declares it, {fault}",
                "Let both services import one declaration of it",
            )


def foreign_events(choreography: Choreography) -> Iterator[Finding]:
    """Every event is emitted by its owner alone."""
    for node in choreography.nodes:
        for event in node.emits:
            owner = _contract(choreography, event).owner
            if owner != node.service:
                yield _at(
                    node,
                    "foreign event",
                    f"{_place(node)} emits {event}, which belongs to {owner}",
                    f'Return an event of its own, or declare {event} with owner="{node.service}"',
                )


def uncompensated_steps(choreography: Choreography) -> Iterator[Finding]:
    """Every step that may be done before a refusal, also on another branch, is undone after it."""
    for graph, _ in _graphs(choreography):
        for step in graph.forward:
            if step not in graph.undoable:
                continue
            refusing = (each for each in graph.forward if step in graph.completed_without((each,)))
            refusals = [refusal for each in refusing for refusal in each.refusals]
            slots = step.undoing.slots if step.undoing else ()
            missing = [each for each in refusals if all(slot.isdisjoint(graph.reached((each,))) for slot in slots)]
            if missing:
                cure = f"Give it a compensation that is reached from there: @….compensation(of={step.name})"
                if step.undoing:
                    cure = f"Let {step.undoing.name} run on {_names(missing)}, or on an event that follows from it"
                message = f"{step.place} is still done after {_names(missing)}"
                function = step.undoing.name if step.undoing else step.name
                yield Finding("uncompensated step", graph.name, step.service, function, message, cure)


def _graphs(choreography: Choreography) -> Iterator[tuple[SagaGraph, list[Node]]]:
    for saga in choreography.sagas:
        if nodes := choreography.nodes_of(saga):
            yield graph_of(choreography, saga), nodes


def _at(node: Node, rule: str, message: str, cure: str) -> Finding:
    return Finding(rule, node.saga.name, node.service, node.name, message, cure)


def _place(node: Node) -> str:
    return f"{node.name} ({node.service})"


def _contract(choreography: Choreography, event: str) -> EventContract:
    found = choreography.event(event)
    assert found is not None  # noqa: S101 -- for the type checker: a contract declares each event that it emits
    return found


def _names(events: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(events))


def _types(slots: Iterable[Slot]) -> str:
    return " and ".join(" | ".join(sorted(slot)) for slot in slots)


RULES: tuple[Callable[[Choreography], Iterator[Finding]], ...] = (
    unconsumed_events,
    unemitted_events,
    unreachable_nodes,
    unreached_ends,
    silent_ends,
    same_ends,
    unreadable_events,
    foreign_events,
    uncompensated_steps,
)
#: The rules that hold whichever steps a coordinator asks, and in whatever order.
UNDER_ANY_PLAN = (silent_ends, same_ends, unreadable_events, foreign_events)
