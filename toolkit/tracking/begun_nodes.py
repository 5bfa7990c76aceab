"""The status of the steps and compensations that have begun, from their own log entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from toolkit.declaration.choreography import Node
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.log_entry import LogEntry, trace_of
from toolkit.tracking.saga_records import SagaRecords, plain
from toolkit.tracking.step_status import NodeProgress, Status

_STATUS: dict[str, dict[str, Status]] = {
    "step": {
        StepState.GATHERING: Status.WAITING,
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
#: The states in a step's stream that neither the step nor the compensation has brought about itself.
_OTHERS = {
    "step": frozenset({StepState.CONFIRMED, StepState.COMPENSATING, StepState.COMPENSATED}),
    "compensation": frozenset({StepState.CONFIRMED}),
}
_OUTCOMES = frozenset({Note.DEAD_LETTERED, Note.DROPPED, Note.REDRIVEN, Note.RETRYING})


def begun(records: SagaRecords, node: Node) -> NodeProgress | None:
    """Return the node's status, or None where no reachable service has an entry of it."""
    if node.service in records.timeline.unreachable:
        return None
    own = records.entries(node)
    moves = [index for index, entry in enumerate(own) if entry.position]
    trouble = [entry for entry in own[moves[-1] + 1 if moves else 0 :] if not entry.position]
    status = _STATUS[node.handler.kind].get(own[moves[-1]].to_state) if moves else None
    if status not in (None, Status.RUNNING, Status.WAITING):
        return _moved(records, node, status, own)
    if records.dead_letter(node) or _is_dead_lettered(trouble):
        return _dead_lettered(records, node, own, trouble)
    tries = [entry for entry in trouble if entry.to_state in (Note.RETRYING, Note.REDRIVEN)]
    if not tries and (status is None or status is Status.WAITING):
        return _waiting(records, node)
    status = Status.OVERDUE if records.is_overdue(node.service, node.step) else Status.RUNNING
    found = _moved(records, node, status, [*own, *tries])
    return _tried_again(records, found, node, tries[-1]) if tries else found


def _waiting(records: SagaRecords, node: Node) -> NodeProgress | None:
    """Return a join that waits for more events; None where it has gathered none, or what it waits for never comes."""
    gathered = records.gathered(node)
    if not gathered or records.is_hopeless(node):
        return None
    if records.timeline.state and records.timeline.state.is_ended:
        return None
    step = node.name  # a compensation's gate is a stream of its own
    waits_for, last = records.waits_for(node), gathered[-1]
    is_overdue = records.is_overdue(node.service, step)
    waiting = Status.WAITING if waits_for else Status.RUNNING
    return replace(
        plain(node, Status.OVERDUE if is_overdue else waiting),
        at=last.at,
        event_in=records.event(last.event_id, last.event_type),
        waits_for=waits_for or None,
        trace_id=trace_of(last),
        nudges=records.nudges(node.service, step) if is_overdue else 0,
    )


def _moved(records: SagaRecords, node: Node, status: Status, own: Sequence[LogEntry]) -> NodeProgress:
    """Build the node's progress from its latest entry; its events come from its own last move."""
    acts = [each for each in own if each.position and each.to_state not in _OTHERS[node.handler.kind]]
    last = [*own, *acts][-1] if status is not Status.UNDONE else own[-1]
    act = acts[-1] if acts else last
    return replace(
        plain(node, status),
        at=last.at,
        attempt=int(act.attempt),
        event_in=records.event(act.event_id, act.event_type),
        event_out=records.event(act.emitted_id, act.emitted_type),
        error=act.error,
        trace_id=trace_of(act),
        nudges=records.nudges(node.service, node.step) if status is Status.OVERDUE else 0,
    )


def _tried_again(records: SagaRecords, found: NodeProgress, node: Node, last: LogEntry) -> NodeProgress:
    """Add the number and the time of the attempt that follows the last failed one.

    A redrive gives the node all its attempts again, the first of them at once.
    """
    taken = records.event(last.event_id, last.event_type)
    if last.to_state == Note.REDRIVEN:
        return replace(found, at=last.at, attempt=1, event_in=taken, error=f"redriven by hand: {last.error}")
    rows = records.outbox(node.service)
    due = [row.due_at for row in rows if row.destination and row.event_type in node.triggers and not row.is_timer]
    return replace(
        found,
        at=last.at,
        attempt=int(last.attempt) + 1,
        next_at=min(due, default=None),
        event_in=taken,
        error=last.error,
    )


def _dead_lettered(
    records: SagaRecords, node: Node, own: Sequence[LogEntry], trouble: Sequence[LogEntry]
) -> NodeProgress:
    """Build the node's progress from its dead letter; from the note where the dead letter was dropped."""
    dead_letter = records.dead_letter(node)
    found = replace(plain(node, Status.DEAD_LETTER), trace_id=trace_of(own[-1]) if own else None)
    if dead_letter:
        return replace(
            found,
            at=dead_letter.last_at,
            attempt=dead_letter.attempts,
            event_in=records.event(dead_letter.message_id, dead_letter.event_type),
            error=dead_letter.error,
            dead_letter_id=dead_letter.id,
        )
    note = [each for each in trouble if each.to_state in (Note.DEAD_LETTERED, Note.DROPPED)][-1]
    is_dropped = note.to_state == Note.DROPPED
    return replace(
        found,
        at=note.at,
        attempt=int(note.attempt),
        event_in=records.event(note.event_id, note.event_type),
        error=f"dropped by hand: {note.error}" if is_dropped else str(note.error),
    )


def _is_dead_lettered(trouble: Iterable[LogEntry]) -> bool:
    """Whether the last outcome of an attempt is a dead letter; one that was redriven goes on."""
    outcomes = [each.to_state for each in trouble if each.to_state in _OUTCOMES]
    return bool(outcomes) and outcomes[-1] in (Note.DEAD_LETTERED, Note.DROPPED)
