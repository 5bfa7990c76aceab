"""The rules for a change that need no interleaving: names by which logs and queues know what is in flight.

A step's service and name are the key of its log; a saga's type and id are its identity. Whether the rest of a graph may
change is for the explorer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from toolkit.checker.graph import GraphStep, fills
from toolkit.compatibility.findings import DRAINED, ChangeFinding, Level
from toolkit.compatibility.readings import faults_of
from toolkit.compatibility.releases import Change, Release
from toolkit.compatibility.schemas import fields_of

Rule = Callable[[Change], Iterator[ChangeFinding]]


def broken_rules(change: Change) -> list[ChangeFinding]:
    """Return the violations, rule by rule."""
    return [finding for rule in RULES for finding in rule(change)]


def lost_steps(change: Change) -> Iterator[ChangeFinding]:
    """Each step that sagas may have reached keeps its service and its name: its log has no other key."""
    for step in change.old.graph.steps:
        if step.place in change.new.steps or not _is_reachable(change.old, step):
            continue
        new = [each for each in change.new.graph.steps if each.place not in change.old.steps]
        moved = next((each for each in new if each.name == step.name), None)
        renamed = next((each for each in new if (each.service, each.slots, each.success)
                        == (step.service, step.slots, step.success)), None)  # fmt: skip
        keep = f"Keep {step.name} in {step.service} {DRAINED}, and let nothing new lead to it"
        if moved:
            what = f"{step.name} has moved from {step.service} to {moved.service}, whose log does not have its sagas"
            yield _at(change, "step moved", step.service, step.name, what, keep)
        elif renamed:
            what = f"{step.place} is named {renamed.name} now, under which the log has no saga"
            cure = f"Keep the name {step.name}: it is the key of the log"
            yield _at(change, "step renamed", step.service, step.name, what, cure)
        else:
            what = f"{step.place} is gone: {step.service} does not start while a saga stands there"
            yield _at(change, "step removed", step.service, step.name, what, keep)


def lost_compensations(change: Change) -> Iterator[ChangeFinding]:
    """Each step that could be undone still can be: whether anything has to undo it, the explorer shows."""
    for place, new in change.new.steps.items():
        old = change.old.steps.get(place)
        if old and old.undoing and new.undoing is None:
            what, keep = f"{place} has no compensation any more", f"Keep {old.undoing.name} {DRAINED}"
            yield _at(change, "compensation removed", new.service, old.undoing.name, what, keep)


def renamed_events(change: Change) -> Iterator[ChangeFinding]:
    """Each event that is in flight keeps its name, unless its consumers take both."""
    old, new = change.old, change.new
    emitted = {event for step in new.graph.steps for event in step.emits} | set(new.outside)
    for step in old.graph.steps:
        for event in (each for each in step.emits if each not in emitted):
            name = _new_name(change, step, event)
            readers = [each.place for each in old.graph.steps if any(event in slot for slot in each.slots)
                       and not any(event in slot for slot in new.slots(each.place, undoing=False))]  # fmt: skip
            if name and readers:
                what = f"{step.place} emits {name} now, and {' and '.join(readers)} no longer takes {event}"
                cure = f"Keep the name {event}, or let {' and '.join(readers)} take both {DRAINED}"
                yield _at(change, "event renamed", step.service, step.name, what, cure, event=event)


def other_identities(change: Change) -> Iterator[ChangeFinding]:
    """A saga keeps the field that holds its id."""
    old, new = change.old.saga, change.new.saga
    if old.id_field != new.id_field:
        first = change.new.graph.steps[0]
        what = f"the id of {new.name} is in {new.id_field} now; what is in flight has it in {old.id_field}"
        yield _at(change, "saga id changed", first.service, first.name, what, f'Keep id_field="{old.id_field}"')


def lost_marks(change: Change) -> Iterator[ChangeFinding]:
    """A sensitive field stays one: what was hidden would be shown, in what is stored already, too."""
    for service, contract in change.new.contracts.items():
        former = change.old.contracts.get(service)
        for name, event in contract.events.items():
            known = former.events.get(name) if former else None
            marks = sorted(set(known.sensitive) - set(event.sensitive)) if known else []
            if shown := [each for each in marks if each in fields_of(event.json_schema)]:
                paths, are = ", ".join(f"`{each}`" for each in shown), "are" if len(shown) > 1 else "is"
                what = f"{paths} of {name} {are} not sensitive any more in {service}: logs, console and traces show it"
                users = (each.name for each in contract.handlers if name in (*each.triggers, *each.emits))
                cure = f"Keep the mark in {name}: Annotated[…, Sensitive]"
                yield _at(change, "sensitive mark lost", service, next(users, name), what, cure, event=name)


def shorter_timeouts(change: Change) -> Iterator[ChangeFinding]:
    """A shorter timeout lets sagas that wait refuse at once: they end, and perhaps not as they would have."""
    for step in change.new.graph.steps:
        old, new = change.old.handler(step.service, step.name), change.new.handler(step.service, step.name)
        if not (old and new and new.timeout):
            continue
        if old.timeout is None or new.timeout < old.timeout:
            before = "it had none" if old.timeout is None else f"it was {old.timeout:g} s"
            what = f"the timeout of {step.place} is {new.timeout:g} s, {before}: sagas that wait longer refuse at once"
            cure = f"Keep the timeout of {step.name} {DRAINED}, if they are to succeed"
            yield _at(change, "timeout shortened", step.service, step.name, what, cure, level=Level.NOTE)


def other_coordinators(change: Change) -> Iterator[ChangeFinding]:
    """A saga keeps its coordinator, or goes on without one: the plan of each saga stands in the coordinator's log."""
    old, new = coordinators_of(change.old), coordinators_of(change.new)
    if old != new:
        first = change.old.graph.steps[0]
        words = [" and ".join(each) if each else "no coordinator" for each in (old, new)]
        what = f"{words[1]} asks the steps of {change.old.saga.name} now, and it was {words[0]}"
        cure = f"Keep it as it was {DRAINED}: start the new kind under another saga type"
        service = (old or new)[0]
        yield _at(change, "coordinator changed", service, first.name, what, cure)


def coordinators_of(release: Release) -> list[str]:
    """Return the services that ask the saga's steps; none where it is a choreography."""
    name = release.saga.name
    asked = {each.asked_by[name] for each in release.contracts.values() if name in each.asked_by}
    return sorted(asked | {each.service for each in release.contracts.values() if name in each.coordinates})


def _new_name(change: Change, step: GraphStep, event: str) -> str | None:
    """Return the event that a step emits in place of one, with the same fields."""
    new = change.new.steps.get(step.place)
    known = {each for one in change.old.graph.steps for each in one.emits}
    sent = change.old.event(event, step.service)
    for each in (new.emits if new else ()) if sent else ():
        other = change.new.event(each, step.service)
        if each not in known and other and sent:
            same = sent.model_copy(update={"routing_key": other.routing_key, "version": other.version})
            if not faults_of(same, other):
                return each
    return None


def _is_reachable(release: Release, step: GraphStep) -> bool:
    plans = (plan for each in release.contracts.values() for plan in each.plans.get(release.saga.name, ()))
    asked = {name for plan in plans for group in (*plan.groups, (plan.failed_end,)) for name in group}
    return step.name in asked or fills(step, release.graph.possible)


def _at(
    change: Change,
    rule: str,
    service: str,
    function: str,
    message: str,
    cure: str,
    *,
    event: str | None = None,
    level: Level = Level.ERROR,
) -> ChangeFinding:
    return ChangeFinding(
        rule=rule,
        saga=change.old.saga.name,
        service=service,
        function=function,
        message=message,
        cure=cure,
        level=level,
        event=event,
    )


RULES: tuple[Rule, ...] = (
    lost_steps,
    lost_compensations,
    renamed_events,
    other_identities,
    other_coordinators,
    lost_marks,
    shorter_timeouts,
)
