"""Where each step and compensation of a saga stands, read from the services' logs along the choreography.

Whoever can't be asked is unknown, never "not done".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.events import SagaState
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.log_entry import DetailedEntry, LogEntry, trace_of
from toolkit.protocol.timeline import Timeline

Rows = Sequence[Mapping[str, Any]]


class View(Protocol):
    """What one service knows of a saga beside its log entries."""

    @property
    def outbox(self) -> Rows:
        """What waits to go out, the service's own retries among it."""
        ...

    @property
    def dead_letters(self) -> Rows:
        """What was given up."""
        ...

    @property
    def overdue(self) -> Rows:
        """Steps that wait for the saga's end for too long."""
        ...


class Status(StrEnum):
    """Where one step or compensation of a saga stands."""

    DONE = "done"
    RUNNING = "running"
    REMAINING = "remaining"
    """Still to come, if nobody refuses."""
    OVERDUE = "overdue"
    """Under way, or still to come, in a saga that should have ended long ago."""
    DEAD_LETTER = "dead_letter"
    """Given up; it waits for a person."""
    UNDONE = "undone"
    REFUSED = "refused"
    FENCED = "fenced"
    SKIPPED = "skipped"
    """Not on the saga's way, as it stands."""
    UNKNOWN = "unknown"
    """Nobody who could be asked knows."""

    @property
    def is_to_come(self) -> bool:
        """Whether it is not over."""
        return self in (Status.RUNNING, Status.REMAINING, Status.OVERDUE, Status.DEAD_LETTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """An event that a step took or emitted; its body is as its service shows it, or None."""

    type: str
    id: str | None = None
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """One step or compensation, in one saga.

    - `of`: the step that a compensation undoes.
    - `at`: since when it stands so; `next_at`: when it is tried again.
    - `attempt`, `attempts`: which attempt is the last, or the next one, and how many there are in all.
    - `nudges`: how often the event that it waits for was sent again; `dead_letter_id`: its dead letter.
    """

    service: str
    name: str
    kind: str
    of: str | None = None
    status: Status
    at: datetime | None = None
    attempt: int | None = None
    attempts: int | None = None
    next_at: datetime | None = None
    event_in: SeenEvent | None = None
    event_out: SeenEvent | None = None
    error: str | None = None
    trace_id: str | None = None
    nudges: int = 0
    dead_letter_id: str | None = None


def nodes_of(timeline: Timeline, choreography: Choreography, views: Mapping[str, View]) -> list[NodeProgress]:
    """Return where each node of one saga stands; the story tells of one saga type, which the choreography knows."""
    return _Reading(timeline, choreography, views).nodes()


class _Reading:
    """One saga's entries, read along its choreography."""

    def __init__(self, timeline: Timeline, choreography: Choreography, views: Mapping[str, View]) -> None:
        self._timeline = timeline
        self._choreography = choreography
        saga = choreography.saga(str(timeline.saga_type))
        assert saga is not None  # noqa: S101 -- whatever a log names was added to the choreography
        self._saga = saga
        self._views = views
        self._streams: dict[tuple[str, str], list[LogEntry]] = {}
        for entry in timeline.entries:
            self._streams.setdefault((entry.service, entry.step), []).append(entry)
        emitted_events = [entry for entry in timeline.entries if entry.emitted_id and entry.position]
        self._emitted = {str(entry.emitted_id): entry for entry in emitted_events}

    def nodes(self) -> list[NodeProgress]:
        """Return all nodes of the saga."""
        begun = {node: self._begun(node) for node in self._choreography.nodes_of(self._saga)}
        awaited = self._awaited(begun)
        return [found or self._not_begun(node, awaited, begun) for node, found in begun.items()]

    # -- what has begun --------------------------------------------------------------------------------------------

    def _begun(self, node: Node) -> NodeProgress | None:
        """Return where the node stands, or None where nothing of it is known here."""
        if node.service in self._timeline.unreachable:
            return None
        own = self._entries(node)
        moves = [index for index, entry in enumerate(own) if entry.position]
        trouble = [entry for entry in own[moves[-1] + 1 if moves else 0 :] if not entry.position]
        last = own[moves[-1]] if moves else None
        status = _STATUS[node.handler.kind].get(last.to_state) if last else None
        if status not in (None, Status.RUNNING):
            return self._told(node, status, own)
        if self._dead_letter(node) or _given_up(trouble):
            return self._given_up(node, own, trouble)
        tries = [entry for entry in trouble if entry.to_state in (Note.RETRYING, Note.REDRIVEN)]
        if status is None and not tries:
            return None
        status = Status.OVERDUE if self._overdue(node.service, node.step) else Status.RUNNING
        told = self._told(node, status, [*own, *tries])
        return self._tried_again(told, node, tries[-1]) if tries else told

    def _entries(self, node: Node) -> list[LogEntry]:
        """Return the entries of a step that are the node's own: its compensation writes into the same stream."""
        stream = self._streams.get((node.service, node.step), [])
        if node.is_compensation:
            return [each for each in stream if each.event_type in node.triggers and not _is_step_fenced(each)]
        return [
            each
            for each in stream
            if each.event_type in node.triggers or each.to_state in _OF_THE_STEP or not each.event_type
        ]

    def _told(self, node: Node, status: Status, own: Sequence[LogEntry]) -> NodeProgress:
        """Return the node with what its last entry tells; what it took and emitted is told by its own last move."""
        acts = [each for each in own if each.position and each.to_state not in _OTHERS[node.handler.kind]]
        last = [*own, *acts][-1] if status is not Status.UNDONE else own[-1]
        act = acts[-1] if acts else last
        return replace(
            self._plain(node, status),
            at=last.at,
            attempt=int(act.attempt),
            event_in=self._event(act.event_id, act.event_type),
            event_out=self._event(act.emitted_id, act.emitted_type),
            error=act.error,
            trace_id=trace_of(act),
            nudges=self._nudges(node.service, node.step) if status is Status.OVERDUE else 0,
        )

    def _tried_again(self, told: NodeProgress, node: Node, last: LogEntry) -> NodeProgress:
        """Return the node with what its last failed attempt tells: which one comes next, and when.

        A redrive gives it all its attempts again, the first of them at once.
        """
        taken = self._event(last.event_id, last.event_type)
        if last.to_state == Note.REDRIVEN:
            error = f"redriven by hand: {last.error}"
            return replace(told, at=last.at, attempt=1, event_in=taken, error=error)
        rows = self._views[node.service].outbox if node.service in self._views else ()
        own = [row["due_at"] for row in rows if row["destination"] and row["event_type"] in node.triggers]
        return replace(
            told,
            at=last.at,
            attempt=int(last.attempt) + 1,
            next_at=min(own, default=None),
            event_in=taken,
            error=last.error,
        )

    def _given_up(self, node: Node, own: Sequence[LogEntry], trouble: Sequence[LogEntry]) -> NodeProgress:
        """Return the node with its dead letter; where that was dropped, with who did so and why."""
        dead_letter = self._dead_letter(node)
        words = [each for each in trouble if each.to_state in (Note.DEAD_LETTERED, Note.DROPPED)]
        if dead_letter:
            at, error, attempt = dead_letter["last_at"], str(dead_letter["error"]), dead_letter["attempts"]
        else:
            at, attempt = words[-1].at, words[-1].attempt
            is_dropped = words[-1].to_state == Note.DROPPED
            error = f"dropped by hand: {words[-1].error}" if is_dropped else str(words[-1].error)
        last = own[-1] if own else None
        return replace(
            self._plain(node, Status.DEAD_LETTER),
            at=at,
            attempt=int(attempt),
            event_in=self._event(
                dead_letter["message_id"] if dead_letter else words[-1].event_id,
                dead_letter["event_type"] if dead_letter else words[-1].event_type,
            ),
            error=error,
            trace_id=trace_of(last) if last else None,
            dead_letter_id=dead_letter["id"] if dead_letter else None,
        )

    # -- what has not ----------------------------------------------------------------------------------------------

    def _awaited(self, begun: Mapping[Node, NodeProgress | None]) -> dict[Node, LogEntry | None]:
        """Return the nodes that are still to come if nobody refuses, each with the entry that it waits on, if any."""
        if self._timeline.state and self._timeline.state.is_ended:
            return {}
        found: dict[Node, LogEntry | None] = {}
        waiting: deque[tuple[str, LogEntry | None]] = deque()
        for entry in self._emitted.values():
            waiting.append((str(entry.emitted_type), entry))
        waiting.extend((node.success, None) for node, told in begun.items() if told and told.status.is_to_come)
        while waiting:
            event, cause = waiting.popleft()
            for node in self._choreography.listeners(event, self._saga):
                if node not in found and not begun[node] and not self._is_moot(node):
                    found[node] = cause
                    waiting.append((node.success, None))
        return found

    def _is_moot(self, node: Node) -> bool:
        """Whether the node is a compensation of what never was done, or is undone already."""
        moves = [each for each in self._streams.get((node.service, node.step), []) if each.position]
        return node.is_compensation and bool(moves) and moves[-1].to_state in _NOTHING_TO_UNDO

    def _not_begun(
        self, node: Node, awaited: Mapping[Node, LogEntry | None], begun: Mapping[Node, NodeProgress | None]
    ) -> NodeProgress:
        if node.service in self._timeline.unreachable:
            is_possible = not node.is_compensation or node in awaited or self._may_be_triggered(node)
            return self._plain(node, Status.UNKNOWN if is_possible else Status.SKIPPED)
        if node not in awaited:
            is_possible = self._is_forgotten(node, begun) or self._is_behind_unknown_service(node)
            return self._plain(node, Status.UNKNOWN if is_possible else Status.SKIPPED)
        cause = awaited[node]
        if cause is None:
            return self._plain(node, Status.REMAINING)
        waits_for_long = self._overdue(cause.service, cause.step)
        return replace(
            self._plain(node, Status.OVERDUE if waits_for_long else Status.REMAINING),
            at=cause.at,
            event_in=self._event(cause.emitted_id, cause.emitted_type),
            error=self._unsent(cause),
            nudges=self._nudges(cause.service, cause.step) if waits_for_long else 0,
            trace_id=trace_of(cause),
        )

    def _unsent(self, cause: LogEntry) -> str | None:
        """Return what keeps an event from going out, if it was tried in vain."""
        rows = self._views[cause.service].outbox if cause.service in self._views else ()
        row = next((row for row in rows if row["event_id"] == cause.emitted_id and row["tries"]), None)
        return f"{cause.emitted_type} lies in the outbox, sent {row['tries']} times in vain" if row else None

    def _may_be_triggered(self, node: Node) -> bool:
        told = {entry.emitted_type for entry in self._emitted.values()}
        away = {
            event
            for each in self._choreography.nodes
            if each.service in self._timeline.unreachable
            for event in each.emits
        }
        return any(event in told or event in away for event in node.triggers)

    def _is_forgotten(self, node: Node, begun: Mapping[Node, NodeProgress | None]) -> bool:
        """Whether the node must have been done, although its service tells nothing of it any more."""
        forward = self._choreography.forward(self._saga)
        if node not in forward:
            return False
        if self._timeline.state is SagaState.COMPLETED:
            return True
        later = (begun[each] for each in forward[forward.index(node) + 1 :])
        return any(each and each.status is not Status.FENCED for each in later)  # an abort fences whatever it meets

    def _is_behind_unknown_service(self, node: Node) -> bool:
        """Whether somebody of whom not even the contract is known may still lead the saga to the node."""
        known = {contract.service for contract in self._choreography.contracts}
        if self._timeline.unreachable.keys() <= known or (self._timeline.state and self._timeline.state.is_ended):
            return False
        nodes = self._choreography.nodes_of(self._saga)
        emitted = {self._saga.starts_with, *(event for each in nodes for event in each.emits)}
        strange = {event for each in nodes for event in each.triggers} - emitted
        return any(node in self._choreography.reached_from(event, self._saga) for event in strange)

    # -- what lies beside the log ----------------------------------------------------------------------------------

    def _plain(self, node: Node, status: Status) -> NodeProgress:
        handler = node.handler
        return NodeProgress(
            service=node.service,
            name=node.name,
            kind=handler.kind,
            of=handler.of,
            status=status,
            attempts=handler.attempts or None,
        )

    def _dead_letter(self, node: Node) -> Mapping[str, Any] | None:
        """Return the dead letter that stops the node; one that no step has left is known by its event alone."""
        dead_letters = self._views[node.service].dead_letters if node.service in self._views else ()
        return next(
            (
                each
                for each in dead_letters
                if each["step"] in (node.step, None) and str(each["event_type"]) in node.triggers
            ),
            None,
        )

    def _overdue(self, service: str, step: str) -> Mapping[str, Any] | None:
        rows = self._views[service].overdue if service in self._views else ()
        return next((row for row in rows if row["step"] == step), None)

    def _nudges(self, service: str, step: str) -> int:
        row = self._overdue(service, step)
        return int(row["nudges"]) if row else 0

    def _event(self, event_id: str | None, event_type: str | None) -> SeenEvent | None:
        if not event_type:
            return None
        emitted = self._emitted.get(str(event_id))
        body = emitted.emitted_body if isinstance(emitted, DetailedEntry) else None
        return SeenEvent(type=event_type, id=event_id, body=body)


_STATUS: dict[str, dict[str, Status]] = {
    "step": {
        StepState.EXECUTING: Status.RUNNING,
        StepState.VOIDING: Status.RUNNING,
        StepState.COMPLETED: Status.DONE,
        StepState.CONFIRMED: Status.DONE,
        StepState.COMPENSATING: Status.DONE,
        StepState.FAILED: Status.REFUSED,
        StepState.FENCED: Status.FENCED,
        StepState.COMPENSATED: Status.UNDONE,
    },
    "compensation": {StepState.COMPENSATING: Status.RUNNING, StepState.COMPENSATED: Status.DONE},
}
_OF_THE_STEP = frozenset({StepState.FENCED, StepState.CONFIRMED, StepState.COMPENSATING, StepState.COMPENSATED})
#: What stands in a step's stream and was not done by the step, or by its compensation.
_OTHERS = {
    "step": frozenset({StepState.CONFIRMED, StepState.COMPENSATING, StepState.COMPENSATED}),
    "compensation": frozenset({StepState.CONFIRMED}),
}
_NOTHING_TO_UNDO = frozenset({StepState.FAILED, StepState.FENCED, StepState.COMPENSATED, StepState.CONFIRMED})


def _is_step_fenced(entry: LogEntry) -> bool:
    return bool(entry.to_state == StepState.FENCED)


def _given_up(trouble: Iterable[LogEntry]) -> bool:
    """Whether the last word on an attempt is that it was given up; one that was redriven goes on."""
    words = [each.to_state for each in trouble if each.to_state in _LAST_WORDS]
    return bool(words) and words[-1] in (Note.DEAD_LETTERED, Note.DROPPED)


_LAST_WORDS = frozenset({Note.DEAD_LETTERED, Note.DROPPED, Note.REDRIVEN, Note.RETRYING})
