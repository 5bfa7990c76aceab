"""The timeline of one saga as text, for the failure of a test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from toolkit.protocol.keys import SagaKey
from toolkit.protocol.log_entry import LogEntry


def timeline_of(saga: SagaKey, entries: Sequence[LogEntry], now: datetime, *, left: Iterable[str] = ()) -> str:
    """Return the entries of a saga, one a line, and what is left of it beside them."""
    saga_type, saga_id = saga
    lines = [*map(_line, entries)] or ["no service has an entry of it"]
    head = f"{saga_type} {saga_id}, as it stands at {clock_time(now)}:"
    return "\n".join([head, *(f"  {each}" for each in (*lines, *left))])


def _line(entry: LogEntry) -> str:
    state = f"→ {entry.to_state}" if entry.position is not None else f"({entry.to_state})"
    emitted = f", emits {entry.emitted_type}" if entry.emitted_type else ""
    error = f": {entry.error}" if entry.error else ""
    cause = f" on {entry.event_type}" if entry.event_type else ""
    return f"{clock_time(entry.at)}  {entry.service}  {entry.step} {state}{cause}{emitted}{error}"


def clock_time(moment: datetime) -> str:
    """Return a time of a test's clock: day, hours, minutes, seconds and milliseconds."""
    return f"{moment:%d %H:%M:%S}.{moment.microsecond // 1000:03}"
