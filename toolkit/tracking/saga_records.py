"""All that the services know of one saga: its log entries by step, and the rows beside the logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.declaration.choreography import Choreography, Node
from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.protocol.fence import StepState
from toolkit.protocol.joins import Gate
from toolkit.protocol.log_entry import DetailedEntry, LogEntry
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage
from toolkit.protocol.timeline import Timeline
from toolkit.tracking.step_status import NodeProgress, SeenEvent, Status, View

#: The states after which a step emits nothing more, nor does its compensation.
_OVER = frozenset({StepState.FAILED, StepState.FENCED, StepState.CONFIRMED, StepState.COMPENSATED})
_OF_THE_STEP = frozenset({StepState.FENCED, StepState.CONFIRMED, StepState.COMPENSATING, StepState.COMPENSATED})


class SagaRecords:
    """One saga's timeline, the choreography that it runs along, and the services' views by name."""

    def __init__(self, timeline: Timeline, choreography: Choreography, views: Mapping[str, View]) -> None:
        saga = choreography.saga(str(timeline.saga_type))
        assert saga is not None  # noqa: S101 -- every saga that a log names was added to the choreography
        self.saga = saga
        self.timeline = timeline
        self.choreography = choreography
        self._views = views
        self._streams: dict[tuple[str, str], list[LogEntry]] = {}
        for entry in timeline.entries:
            self._streams.setdefault((entry.service, entry.step), []).append(entry)
        self.emitted = {entry.emitted_id: entry for entry in timeline.entries if entry.emitted_id and entry.position}
        self._asked = {(each.service, name) for each in choreography.contracts for name in each.asked_by}

    def from_outside(self) -> list[LogEntry]:
        """Return the first entry that took each event that no known entry emitted, such as the starting event."""
        first: dict[str, LogEntry] = {}
        for entry in sorted(self.timeline.entries, key=lambda each: each.at):
            if entry.event_type and str(entry.event_id) not in self.emitted:
                first.setdefault(str(entry.event_type), entry)
        return list(first.values())

    def is_asked(self, node: Node) -> bool:
        """Whether a coordinator's commands alone run the node."""
        return (node.service, self.saga.name) in self._asked

    def stream(self, node: Node) -> Sequence[LogEntry]:
        """Return the entries of the node's step; a compensation writes into the stream of its step."""
        return self._streams.get((node.service, node.step), [])

    def entries(self, node: Node) -> list[LogEntry]:
        """Return the entries of the stream that are the node's own."""
        if node.is_compensation:
            taken = (each for each in self.stream(node) if each.event_type in node.triggers)
            return [each for each in taken if each.to_state != StepState.FENCED]
        return [
            each
            for each in self.stream(node)
            if each.event_type in node.triggers or each.to_state in _OF_THE_STEP or not each.event_type
        ]

    def gathered(self, node: Node) -> list[LogEntry]:
        """Return the arrivals that a join has gathered; a compensation gathers in a stream of its own name."""
        entries = self._streams.get((node.service, node.name), []) if node.handler.is_join else []
        return [each for each in entries if each.position and each.to_state == StepState.GATHERING]

    def waits_for(self, node: Node, *more: str) -> str:
        """Return the slots of a join that neither what it has gathered nor `more` fills, in words."""
        return _gate(node).waits_for([*(str(each.event_type) for each in self.gathered(node)), *more])

    def is_hopeless(self, node: Node) -> bool:
        """Whether the node never runs: one of its slots is empty, and no event that fills it can come any more."""
        return any(all(self._cannot_come(event) for event in slot.events) for slot in node.handler.slots)

    def _cannot_come(self, event: str) -> bool:
        """Whether each step that could emit the event, or whose compensation could, is over without it."""
        emitters = [
            node for node in self.choreography.nodes if event in node.emits and node.saga.name == self.saga.name
        ]
        has_come = any(entry.emitted_type == event for entry in self.emitted.values())
        return bool(emitters) and not has_come and all(self._is_over(node) for node in emitters)

    def _is_over(self, node: Node) -> bool:
        moves = [each.to_state for each in self.stream(node) if each.position]
        return bool(moves) and moves[-1] in _OVER

    def event(self, event_id: str | None, event_type: str | None) -> SeenEvent | None:
        """Return an event, with its body where the entry that emitted it has one; None without a type."""
        if not event_type:
            return None
        emitted = self.emitted.get(str(event_id))
        body = emitted.emitted_body if isinstance(emitted, DetailedEntry) else None
        return SeenEvent(type=event_type, id=event_id, body=body)

    def outbox(self, service: str) -> Sequence[UnsentMessage]:
        """Return the saga's outbox rows in a service."""
        return self._views[service].outbox if service in self._views else ()

    def dead_letter(self, node: Node) -> DeadLetterSummary | None:
        """Return the dead letter that stops the node; one without a step is matched by its event alone."""
        dead_letters = self._views[node.service].dead_letters if node.service in self._views else ()
        for each in dead_letters:
            if each.step in (node.step, None) and str(each.event_type) in node.triggers:
                return each
        return None

    def is_overdue(self, service: str, step: str) -> bool:
        """Whether the step has waited too long for the saga's end."""
        return self._overdue(service, step) is not None

    def nudges(self, service: str, step: str) -> int:
        """Return how often the overdue step's event was sent again."""
        row = self._overdue(service, step)
        return row.nudges if row else 0

    def _overdue(self, service: str, step: str) -> OverdueStep | None:
        rows = self._views[service].overdue if service in self._views else ()
        return next((row for row in rows if row.step == step), None)


def _gate(node: Node) -> Gate:
    return Gate({slot.name: slot.events for slot in node.handler.slots})


def plain(node: Node, status: Status) -> NodeProgress:
    """Return the node with its status and its declaration alone."""
    handler = node.handler
    return NodeProgress(
        service=node.service,
        name=node.name,
        kind=handler.kind,
        of=handler.of,
        status=status,
        attempts=handler.attempts or None,
    )
