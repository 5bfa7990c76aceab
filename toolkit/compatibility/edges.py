"""The edges of a change: each event from its sender to each of its readers, in each combination of releases.

While a deployment runs, and as long as messages and log entries are in flight, readers of one release read what the
other one sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from toolkit.compatibility.cures import cure_of
from toolkit.compatibility.differences import Kind
from toolkit.compatibility.event_changes import event_changes
from toolkit.compatibility.findings import ChangeFinding, Level
from toolkit.compatibility.readings import VERSION, Fault, faults_of
from toolkit.compatibility.releases import Change, Release, Which
from toolkit.compatibility.schemas import fields_of

#: The sender of what comes from outside.
CLIENT = "client"


class When(StrEnum):
    """Which release sends, and which one reads."""

    IN_FLIGHT = "in flight"
    """The old one sent it, in messages, outboxes and logs; the new one reads it."""
    AFTERWARDS = "afterwards"
    """Both are new."""
    ROLLING = "while deployed"
    """The new one sends it, while old readers still run."""

    @property
    def sides(self) -> tuple[Which, Which]:
        """The sender's release, and the reader's."""
        return _SIDES[self]


_SIDES = {
    When.IN_FLIGHT: (Which.OLD, Which.NEW),
    When.ROLLING: (Which.NEW, Which.OLD),
    When.AFTERWARDS: (Which.NEW, Which.NEW),
}


@dataclass(frozen=True, slots=True)
class Edge:
    """An event, its sender, and the functions of one service that read it.

    - `changes`: what the change does to the event, as its sender or its reader declares it.
    - `faults`: why it is not read.
    """

    event: str
    sender: str
    reader: str
    functions: tuple[str, ...]
    when: When
    changes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def is_compatible(self) -> bool:
        """Whether the reader reads each such message."""
        return not self.faults


def edges_of(change: Change, *, order: tuple[str, ...] = ()) -> list[Edge]:
    """Return the edges of a saga's change; `order`: services that are deployed one after the other, before others."""
    return [
        _edge(change, event, sender, reader, functions, when)
        for when in When
        for event, sender, reader, functions in _pairs(change, when, order)
    ]


def findings_of(change: Change, edges: list[Edge]) -> Iterator[ChangeFinding]:
    """Yield the faults of the edges, each in the first combination that has it, and what readers find no more."""
    known: dict[tuple[str, str, str], When] = {}
    for edge in edges:
        for fault in edge.faults:
            if known.setdefault((edge.event, edge.reader, fault.rule), edge.when) is edge.when:
                yield _finding(change, edge, fault)
    for edge in edges:
        if edge.when is When.AFTERWARDS and edge.is_compatible:
            yield from _dropped(change, edge)
    yield from _unread(change)


def _pairs(change: Change, when: When, order: tuple[str, ...]) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    sender_release, reader_release = (change.release(each) for each in when.sides)
    for event, readers in _readers(reader_release).items():
        for sender in _senders(sender_release, event):
            for reader, functions in readers.items():
                if when is not When.ROLLING or _may_overtake(change, sender, reader, order):
                    yield event, sender, reader, tuple(functions)


def _senders(release: Release, event: str) -> list[str]:
    """Return who sends an event: services, clients, or the coordinator that builds it."""
    found = [*release.senders(event), *([CLIENT] if event in release.outside else [])]
    return found or [each.service for each in release.contracts.values() if release.saga.name in each.coordinates]


def _may_overtake(change: Change, sender: str, reader: str, order: tuple[str, ...]) -> bool:
    """Whether a new sender may run beside an old reader of another service; clients are not deployed."""
    if sender in (CLIENT, reader) or reader not in change.new.contracts:
        return False
    places = {service: place for place, service in enumerate(order)}
    return places.get(reader, len(places)) >= places.get(sender, len(places))


def _readers(release: Release) -> dict[str, dict[str, list[str]]]:
    """Return the functions that read each event, by service; a compensation reads its step's success, too."""
    found: dict[str, dict[str, list[str]]] = {}
    for step in release.graph.steps:
        undoing = step.undoing
        read = [(event, step.name) for slot in step.slots for event in sorted(slot)]
        if undoing:
            read += [(event, undoing.name) for slot in undoing.slots for event in sorted(slot)]
            handler = release.handler(step.service, undoing.name)
            read += [(step.success, undoing.name)] if handler and handler.original is not False else []
        for event, function in read:
            functions = found.setdefault(event, {}).setdefault(step.service, [])
            if function not in functions:
                functions.append(function)
    for contract in release.contracts.values():
        for plan in contract.plans.get(release.saga.name, ())[:1]:
            for event in contract.received:
                found.setdefault(event, {}).setdefault(contract.service, []).append(plan.coordinator)
    return found


def _edge(change: Change, event: str, sender: str, reader: str, functions: tuple[str, ...], when: When) -> Edge:
    sent, taken = when.sides
    faults = change.faults(event, sent, reader, taken)
    return Edge(event, sender, reader, functions, when, _changes(change, event, sender, reader), faults)


def _changes(change: Change, event: str, sender: str, reader: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for service in (sender, reader):
        old, new = change.old.event(event, service), change.new.event(event, service)
        found |= dict.fromkeys(event_changes(old, new)) if old and new else {}
    return tuple(found)


def _finding(change: Change, edge: Edge, fault: Fault) -> ChangeFinding:
    reads = f"{', '.join(edge.functions)} ({edge.reader}) does not read {edge.event}"
    how = {
        When.IN_FLIGHT: f"as {edge.sender} sent it before",
        When.AFTERWARDS: f"as the new {edge.sender} sends it",
        When.ROLLING: f"of the new {edge.sender} while {edge.reader} is the old one",
    }
    is_prepared = edge.when is When.ROLLING and not _lacks(change, edge, Which.NEW)
    is_upcast = is_prepared and fault.rule == VERSION and not _lacks(change, edge, Which.OLD)
    return ChangeFinding(
        rule=_rule(change, edge, fault),
        saga=change.old.saga.name,
        service=edge.reader,
        function=edge.functions[0],
        message=f"{reads} {how[edge.when]}: {fault}",
        cure=f"Deploy {edge.reader} before {edge.sender}: --order {edge.reader}"
        if is_prepared
        else _cure(change, edge, fault),
        level=Level.NOTE if is_upcast else Level.ERROR,
        event=edge.event,
    )


def _lacks(change: Change, edge: Edge, sent: Which) -> bool:
    """Whether the new reader does not read the event as a release sends it."""
    return bool(change.faults(edge.event, sent, edge.reader, Which.NEW))


def _cure(change: Change, edge: Edge, fault: Fault) -> str:
    form = change.sent(edge.event, edge.when.sides[0])
    if form is None:
        return f"Keep {edge.event} as it was"
    if edge.when is When.AFTERWARDS and fault.rule in (Kind.REQUIRED, Kind.RENAMED):
        return f"Keep {fault.path} in {edge.event} of {edge.sender}, or give it a default in {edge.reader}"
    return cure_of(fault, edge.event, form)


def _rule(change: Change, edge: Edge, fault: Fault) -> str:
    """Return the rule of a fault; of a version, the way that it went."""
    old, new = change.sent(edge.event, Which.OLD), change.new.event(edge.event, edge.reader)
    if fault.rule != VERSION or old is None or new is None:
        return fault.rule
    return "version lowered" if new.version < old.version else "version raised"


def _dropped(change: Change, edge: Edge) -> Iterator[ChangeFinding]:
    """Yield the fields that a reader still takes, and that are not sent any more: it reads their defaults."""
    old, new = change.sent(edge.event, Which.OLD), change.sent(edge.event, Which.NEW)
    read = change.new.event(edge.event, edge.reader)
    if not (old and new and read):
        return
    gone = fields_of(old.json_schema) - fields_of(new.json_schema)
    for path in sorted(gone & fields_of(read.json_schema)):
        yield ChangeFinding(
            rule="field dropped",
            saga=change.old.saga.name,
            service=edge.reader,
            function=edge.functions[0],
            message=f"{', '.join(edge.functions)} ({edge.reader}) takes `{path}` of {edge.event}, and {edge.sender} "
            "sends it no more: the default is read",
            cure=f"Keep {path} in {edge.event} of {edge.sender}, or drop it in {edge.reader}, too",
            level=Level.NOTE,
            event=edge.event,
        )


def _unread(change: Change) -> Iterator[ChangeFinding]:
    """Yield what changes in events that no contract consumes: subscribers without a contract may read them."""
    read = _readers(change.old)
    for step in change.new.graph.steps:
        for event in (each for each in step.emits if each not in read):
            old, new = change.old.event(event, step.service), change.new.event(event, step.service)
            for fault in faults_of(new, old) if old and new else ():
                yield ChangeFinding(
                    rule="event for others",
                    saga=change.old.saga.name,
                    service=step.service,
                    function=step.name,
                    message=f"a subscriber without a contract may not read {event} of {step.service} any more: {fault}",
                    cure=f"Ask who reads {event}, or keep its fields",
                    level=Level.NOTE,
                    event=event,
                )
