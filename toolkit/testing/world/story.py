"""One saga of a world as text, for the failure of a test: what each step did, and what is still to come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from toolkit.protocol.keys import SagaKey
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import merge
from toolkit.testing.timeline_text import clock_time, timeline_of
from toolkit.testing.world.running import Evidence


def entries_of(saga: SagaKey, evidence: Mapping[str, Evidence]) -> list[LogEntry]:
    """Return the entries of one saga from all services, in the order of cause and effect."""
    return merge([each for each in one.log if (each.saga_type, each.saga_id) == saga] for one in evidence.values())


def story_of(saga: SagaKey, evidence: Mapping[str, Evidence], now: datetime) -> str:
    """Return the timeline of one saga, its dead letters, and the messages that wait for a later time."""
    return timeline_of(saga, entries_of(saga, evidence), now, left=_left(saga, evidence, now))


def _left(saga: SagaKey, evidence: Mapping[str, Evidence], now: datetime) -> Iterator[str]:
    for service, one in evidence.items():
        for letter in one.dead_letters:
            if letter.saga_id == saga[1]:
                yield f"dead letter of {service}: {letter.event_type}, {letter.reason}: {letter.error}"
        for row in one.unsent:
            if row.saga_id == saga[1] and row.destination and row.due_at > now:
                what = "deadline or reminder" if row.is_timer else f"{row.event_type}, attempt {row.attempt}"
                yield f"to come in {service} at {clock_time(row.due_at)}: {what}; world.when.skip({row.due_at - now!r})"
