"""The order in which steps were undone, by cause and effect.

A timeline shows two compensations without a common cause in an order of its own, and time shows the order of one run
alone. So what counts is whether one could not have come before the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.protocol.fence import StepState
from toolkit.protocol.invariants import SagaHistory
from toolkit.protocol.log_entry import LogEntry


def compensations(entries: Sequence[LogEntry]) -> list[LogEntry]:
    """Return the entries that undid a step, in the order of the timeline, without those of a coordinator."""
    saga = SagaHistory("", entries)
    return [
        each
        for each in entries
        if each.to_state == StepState.COMPENSATED and (each.service, each.step) not in saga.asked
    ]


def waited_for(later: LogEntry, earlier: LogEntry, entries: Sequence[LogEntry]) -> bool:
    """Whether a compensation could only come after another one."""
    return any(cause is earlier for cause in SagaHistory("", entries).causes(later))


def undone_too_early(entries: Sequence[LogEntry]) -> Iterator[str]:
    """Yield steps whose compensation did not wait for that of a step that had followed from them."""
    saga, undone = SagaHistory("", entries), compensations(entries)
    for one in undone:
        before = _done(saga, one)
        for other in undone:
            after = _done(saga, other)
            followed = before and after and any(cause is before for cause in saga.causes(after))
            if followed and not any(cause is other for cause in saga.causes(one)):
                yield f"{one.step} was undone without waiting for {other.step}, which had followed from it"


def _done(saga: SagaHistory, undone: LogEntry) -> LogEntry | None:
    stream = saga.streams[undone.service, undone.step]
    return next((each for each in stream if each.to_state == StepState.COMPLETED), None)
