"""A saga's timeline as rows: its log entries in causal order, then the nodes that remain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.protocol.fence import StepState
from toolkit.protocol.log_entry import LogEntry
from toolkit.tracking.progress import NodeProgress, Progress

_COMPENSATING = (SagaState.COMPENSATING, SagaState.FAILED)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the timeline, in its service's lane: an entry, or a node without entries."""

    service: str
    name: str
    status: str
    is_compensation: bool
    entry: LogEntry | None = None
    node: NodeProgress | None = None
    attempts: int | None = None


class NodeIndex:
    """Finds the step or the compensation that wrote an entry."""

    def __init__(self, choreography: Choreography) -> None:
        self._by_step: dict[tuple[str, str, str], list[Node]] = {}
        for node in choreography.nodes:
            # A compensation that joins gathers in a stream of its own name.
            for name in {node.step, node.name} if node.handler.is_join else (node.step,):
                self._by_step.setdefault((node.service, name, node.saga.name), []).append(node)

    def node_of(self, entry: LogEntry) -> Node | None:
        """Return the step or the compensation that wrote an entry."""
        own = self._by_step.get((entry.service, entry.step, entry.saga_type), [])
        triggered = [node for node in own if entry.event_type in node.triggers]
        return next(iter(triggered or [node for node in own if not node.is_compensation]), None)


def is_closing(entry: LogEntry) -> bool:
    """Whether an entry only records that the saga has ended."""
    return str(entry.event_type) == SagaEnded.__name__


def is_compensating(entry: LogEntry) -> bool:
    """Whether an entry was written on the compensation path, the refusal that began it included."""
    return entry.saga_state in _COMPENSATING


def entry_rows(entries: Sequence[LogEntry], progress: Progress, nodes: NodeIndex) -> list[Row]:
    """Return the rows of the entries; the last entry of a step has the step's progress."""
    last = {(entry.service, entry.step): entry for entry in entries}
    by_name = {(node.service, node.name): node for node in progress.nodes}
    rows = []
    for entry in entries:
        if is_closing(entry):
            continue
        node = nodes.node_of(entry)
        is_last = entry is last[entry.service, entry.step]
        rows.append(
            Row(
                entry.service,
                node.name if node else entry.step,
                entry.to_state,
                is_compensating(entry) and entry.to_state != StepState.FAILED,
                entry=entry,
                node=by_name.get((node.service, node.name)) if node and is_last else None,
                attempts=node.handler.attempts if node else None,
            )
        )
    return rows


def remaining_rows(rows: Sequence[Row], progress: Progress) -> list[Row]:
    """Return the rows of the nodes without entries: those that remain, and those whose status is unknown."""
    names = {(row.service, row.name) for row in rows}
    return [
        Row(node.service, node.name, str(node.status), node.kind == "compensation", node=node)
        for node in progress.remaining
        if (node.service, node.name) not in names
    ]
