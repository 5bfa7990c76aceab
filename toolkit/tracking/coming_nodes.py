"""The status of the steps and compensations that have not begun: still to come, skipped or unknown."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from toolkit.declaration.choreography import Node
from toolkit.declaration.events import SagaState
from toolkit.protocol.fence import StepState
from toolkit.protocol.log_entry import LogEntry, trace_of
from toolkit.tracking.saga_records import SagaRecords, plain
from toolkit.tracking.step_status import NodeProgress, Status

_NOTHING_TO_UNDO = frozenset({StepState.FAILED, StepState.FENCED, StepState.COMPENSATED, StepState.CONFIRMED})


@dataclass(frozen=True, slots=True)
class _Cause:
    """An event that is on its way to a node: the entry that emitted it, or the first one that took it elsewhere."""

    entry: LogEntry
    is_emitted: bool

    @property
    def event(self) -> tuple[str | None, str]:
        """The event's id and type."""
        if self.is_emitted:
            return self.entry.emitted_id, str(self.entry.emitted_type)
        return self.entry.event_id, str(self.entry.event_type)


class ComingNodes:
    """The nodes that have not begun; `begun` has the progress of those that have, and None for the others."""

    def __init__(self, records: SagaRecords, begun: Mapping[Node, NodeProgress | None]) -> None:
        self._records = records
        self._timeline = records.timeline
        self._choreography = records.choreography
        self._begun = begun
        emitted = [_Cause(entry, is_emitted=True) for entry in records.emitted.values()]
        self._causes = [*emitted, *(_Cause(entry, is_emitted=False) for entry in records.from_outside())]
        self._awaited = self._follow()

    def progress_of(self, node: Node) -> NodeProgress:
        """Return the progress of a node that has not begun."""
        if node.service in self._timeline.unreachable:
            is_possible = not node.is_compensation or node in self._awaited or self._may_be_triggered(node)
            return plain(node, Status.UNKNOWN if is_possible else Status.SKIPPED)
        if node not in self._awaited:
            is_possible = self._is_forgotten(node) or self._is_behind_unknown_service(node)
            return plain(node, Status.UNKNOWN if is_possible else Status.SKIPPED)
        cause = self._awaited[node]
        return plain(node, Status.REMAINING) if cause is None else self._waiting(node, cause)

    def _waiting(self, node: Node, cause: _Cause) -> NodeProgress:
        """Return the progress of a node whose event was emitted."""
        entry = cause.entry
        is_overdue = self._records.is_overdue(entry.service, entry.step)
        return replace(
            plain(node, Status.OVERDUE if is_overdue else Status.REMAINING),
            at=entry.at,
            event_in=self._records.event(*cause.event),
            error=self._unsent(entry) if cause.is_emitted else None,
            nudges=self._records.nudges(entry.service, entry.step) if is_overdue and cause.is_emitted else 0,
            trace_id=trace_of(entry),
        )

    def _follow(self) -> dict[Node, _Cause | None]:
        """Return the nodes that come next unless a step refuses, each with the event that it waits on, if any."""
        if self._timeline.state and self._timeline.state.is_ended:
            return {}
        found: dict[Node, _Cause | None] = {}
        waiting: deque[tuple[str, _Cause | None]] = deque()
        waiting.extend((cause.event[1], cause) for cause in self._causes)
        waiting.extend((node.success, None) for node, own in self._begun.items() if own and own.status.is_to_come)
        while waiting:
            event, cause = waiting.popleft()
            for node in self._choreography.listeners(event, self._records.saga):
                if node not in found and not self._begun[node] and self._may_come(node, cause):
                    found[node] = cause if self._may_begin(node) else None
                    waiting.append((node.success, None))
        return found

    def _may_come(self, node: Node, cause: _Cause | None) -> bool:
        """Whether the node may still begin on the event."""
        is_over = cause and not cause.is_emitted and (self._records.is_asked(node) or self._is_forgotten(node))
        return not is_over and not self._is_moot(node)

    def _is_moot(self, node: Node) -> bool:
        """Whether the node is a join whose events never come together, or undoes what was not done, or is undone."""
        if node.handler.is_join and self._records.is_hopeless(node):
            return True
        moves = [each for each in self._records.stream(node) if each.position]
        return node.is_compensation and bool(moves) and moves[-1].to_state in _NOTHING_TO_UNDO

    def _may_begin(self, node: Node) -> bool:
        """Whether each slot of the node has an event that has come."""
        come = {cause.event[1] for cause in self._causes}
        return all(not come.isdisjoint(slot.events) for slot in node.handler.slots) if node.handler.is_join else True

    def _unsent(self, cause: LogEntry) -> str | None:
        """Return why an event is still in the outbox, if publishing it has failed."""
        rows = self._records.outbox(cause.service)
        row = next((row for row in rows if row.event_id == cause.emitted_id and row.tries), None)
        return f"{cause.emitted_type} is still in the outbox after {row.tries} failed tries" if row else None

    def _may_be_triggered(self, node: Node) -> bool:
        """Whether an event that was emitted, or that an unreachable service emits, triggers the node."""
        emitted = {entry.emitted_type for entry in self._records.emitted.values()}
        away = {
            event
            for each in self._choreography.nodes
            if each.service in self._timeline.unreachable
            for event in each.emits
        }
        return any(event in emitted or event in away for event in node.triggers)

    def _is_forgotten(self, node: Node) -> bool:
        """Whether the node must have been done, although its service has no entry of it any more."""
        forward = self._choreography.forward(self._records.saga)
        if node not in forward or self._records.gathered(node):
            return False
        if self._timeline.state is SagaState.COMPLETED:
            return True
        # The order of parallel steps means nothing: only what follows from the node shows that it was done.
        after = self._choreography.forward(self._records.saga, since=node.success)
        return any(self._has_run(each) for each in after if each != node)

    def _has_run(self, node: Node) -> bool:
        """Whether the node had its events: an abort fences any step, and a join may wait, or be refused, in vain."""
        own = self._begun[node]
        if own is None or own.status in (Status.FENCED, Status.WAITING):
            return False
        may_lack = node.handler.is_join and own.status in (Status.OVERDUE, Status.REFUSED)
        return not (may_lack and self._records.waits_for(node, *([own.event_in.type] if own.event_in else ())))

    def _is_behind_unknown_service(self, node: Node) -> bool:
        """Whether a service without a known contract may still lead the saga to the node."""
        known = {contract.service for contract in self._choreography.contracts}
        if self._timeline.unreachable.keys() <= known or (self._timeline.state and self._timeline.state.is_ended):
            return False
        nodes = self._choreography.nodes_of(self._records.saga)
        emitted = {self._records.saga.starts_with, *(event for each in nodes for event in each.emits)}
        unknown = {event for each in nodes for event in each.triggers} - emitted
        return any(node in self._choreography.reached_from(event, self._records.saga) for event in unknown)
