"""The invariants of every saga, whatever process died in its course, checked on the services' logs and tables alone.

Pure functions over a saga's merged timeline (`toolkit.protocol.timeline`), one for each invariant, and one over what
is left of all of them together. Money and goods belong to the services; a caller that counts those adds its own
violations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from toolkit.protocol.control_events import ABORT_REQUESTED, SAGA_ENDED
from toolkit.protocol.fence import SagaState, StepState, is_legal
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import asked_streams, is_start

#: Their messages are no events of the saga: no log entry emitted them.
_CONTROL = (SAGA_ENDED, ABORT_REQUESTED)
#: The invariant that only holds beside the answers, which come from outside.
ROOTED = "every event has its cause"
#: The states that a step may be left in, by how its saga ended; a join that gathers has done nothing.
_SETTLED = {
    SagaState.COMPLETED: (StepState.CONFIRMED, StepState.GATHERING),
    SagaState.FAILED: (StepState.FAILED, StepState.FENCED, StepState.COMPENSATED, StepState.GATHERING),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated invariant: its name, the saga (None: all of them together), and how it is violated."""

    invariant: str
    saga_id: str | None
    text: str
    saga_type: str | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """The counts of what lies in one service beside its log; None is not counted.

    `pruned_until`: entries up to that time may have been pruned from the log.
    """

    service: str
    outbox: int | None = None
    dead_letters: int | None = None
    queued: int | None = None
    dead_lettered: int | None = None
    pruned_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SagaHistory:
    """One saga's entries in causal order, indexed for the invariants.

    - `answers`: the types of events that come from outside: no entry emits them.
    - `asked`: a coordinator's streams of the steps that it asks: what they show, the steps' own services did.
    """

    id: str
    entries: Sequence[LogEntry]
    answers: Collection[str] = ()
    streams: dict[tuple[str, str], list[LogEntry]] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)
    emitters: dict[str, LogEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked.update(asked_streams(self.entries))
        for entry in self.entries:
            if entry.position is not None:
                self.streams.setdefault((entry.service, entry.step), []).append(entry)
            if entry.emitted_id:
                self.emitters.setdefault(entry.emitted_id, entry)

    @property
    def endings(self) -> list[LogEntry]:
        """The entries that ended the saga; those that consumed its end are others."""
        return [each for each in self.entries if each.emitted_id and each.saga_state.is_ended]

    def causes(self, entry: LogEntry) -> Iterator[LogEntry]:
        """Yield the entries that led to this one, the nearest first; a cycle is followed once."""
        seen: set[str | None] = set()
        waiting = deque([entry])
        while waiting:
            for event_id in self._taken(waiting.popleft()):
                cause = self.emitters.get(event_id or "")
                if cause and cause.emitted_id not in seen:
                    seen.add(cause.emitted_id)
                    yield cause
                    waiting.append(cause)

    def _taken(self, entry: LogEntry) -> Iterator[str | None]:
        """Yield the event that the entry took, and before it those that its join had gathered."""
        for each in self.streams.get((entry.service, entry.step), ()):
            if each is entry:
                break
            if each.to_state == StepState.GATHERING:
                yield each.event_id
        yield entry.event_id


def violations_of(
    saga_id: str, timeline: Sequence[LogEntry], *, consumed: Collection[str] = (), answers: Collection[str] = ()
) -> list[Violation]:
    """Return the violations of one saga.

    - `consumed`: the events that any service consumes in sagas of its type.
    - `answers`: the events that its services declare as answers.
    """
    saga = SagaHistory(saga_id, timeline, answers)
    found = [(name, text) for name, check in CHECKS.items() for text in check(saga)]
    found += [("nothing is lost", text) for text in lost(saga, consumed)]
    saga_type = next((entry.saga_type for entry in timeline), None)
    return [Violation(name, saga_id, text, saga_type) for name, text in found]


def ended(saga: SagaHistory) -> Iterator[str]:
    """Yield how the saga did not end once, and either completed everywhere or failed with all undone."""
    if not saga.endings:
        last = saga.entries[-1]
        yield f"it has not ended: {last.step} is {last.to_state}"
        return
    if len(saga.endings) > 1:
        yield f"it ended {len(saga.endings)} times: {', '.join(str(each.emitted_type) for each in saga.endings)}"
    outcome = saga.endings[0].saga_state
    ends = {each.emitted_id for each in saga.endings}
    for (_, step), stream in saga.streams.items():
        is_end = stream[-1] in saga.endings or stream[-1].event_id in ends  # a coordinator takes the end as a reply
        has_failed_here = outcome is SagaState.FAILED and is_end
        if not has_failed_here and stream[-1].to_state not in _SETTLED[outcome]:
            yield f"{step} is left {stream[-1].to_state} in a saga that ended {outcome}"


def undone_in_reverse(saga: SagaHistory) -> Iterator[str]:
    """Yield compensations of what was not done, twice over, or before those of the steps that followed from it."""
    undone: list[tuple[str, str]] = []
    for entry in saga.entries:
        key = entry.service, entry.step
        if entry.to_state != StepState.COMPENSATED or key in saga.asked:
            continue
        done = _done(saga, key)
        if done is None:
            yield f"{entry.step} was undone, and had never been done"
            continue
        if key in undone:
            yield f"{entry.step} was undone twice"
        undone.append(key)
        for later in (each for each in saga.streams if each not in saga.asked):
            then = _done(saga, later)
            is_standing = then is not None and later not in undone and then not in saga.endings
            if then and is_standing and done in saga.causes(then):
                yield f"{entry.step} was undone before {later[1]}, which had followed from it"


def done_once(saga: SagaHistory) -> Iterator[str]:
    """Yield steps that took effect more than once, in one service or in two, and events that were emitted twice."""
    places: dict[str, list[str]] = {}
    for entry in saga.entries:
        is_own = (entry.service, entry.step) not in saga.asked
        if is_own and entry.position is not None and entry.to_state == StepState.COMPLETED:
            places.setdefault(entry.step, []).append(entry.service)
    for step, services in places.items():
        if len(services) > 1:
            yield f"{step} was done {len(services)} times, in {', '.join(sorted(set(services)))}"
    ids = [entry.emitted_id for entry in saga.entries if entry.emitted_id and entry.position is not None]
    if len(ids) > len(set(ids)):
        yield "one event was emitted by two entries"


def legal(saga: SagaHistory) -> Iterator[str]:
    """Yield gaps in a step's positions, and illegal moves."""
    for (service, step), stream in saga.streams.items():
        positions = [entry.position for entry in stream]
        if positions != list(range(1, len(stream) + 1)):
            yield f"{step} has the positions {', '.join(map(str, positions))}"
        states = [None, *(StepState(entry.to_state) for entry in stream)]
        for (before, after), entry in zip(pairwise(states), stream, strict=True):
            is_asked = (service, step) in saga.asked
            if after is None or not is_legal(before, after, is_asked=is_asked) or entry.from_state != before:
                yield f"{step} went from {before or 'nothing'} to {after} (its entry has: from {entry.from_state})"


def rooted(saga: SagaHistory) -> Iterator[str]:
    """Yield events that were consumed and that no entry emitted, except answers and the event that started the saga."""
    from_outside = {*_CONTROL, *saga.answers}
    unknown_services = [
        entry
        for entry in saga.entries
        if entry.event_id and entry.event_id not in saga.emitters and entry.event_type not in from_outside
    ]
    # A client's own message id marks no start: then the first entry is it.
    start = next(filter(is_start, unknown_services), unknown_services[0] if unknown_services else None)
    for entry in unknown_services:
        if start and entry.event_type != start.event_type:
            yield f"{entry.step} took a {entry.event_type} that no entry emitted"


def acyclic(saga: SagaHistory) -> Iterator[str]:
    """Yield events that led to themselves."""
    for entry in saga.emitters.values():
        if any(cause is entry for cause in saga.causes(entry)):
            yield f"{entry.emitted_type} of {entry.step} is its own cause"


def still_after_the_end(saga: SagaHistory) -> Iterator[str]:
    """Yield steps that moved in a service after it had consumed the saga's end.

    A coordinator may take the last reply, the end event itself, after the message that announces the end. An event that
    arrives at a join while another replica records the end may be kept behind it: it fills a slot of a join that never
    runs.
    """
    over: set[str] = set()
    ends = {each.emitted_id for each in saga.endings}
    for entry in saga.entries:
        if entry.event_type == SAGA_ENDED:
            over.add(entry.service)
        elif entry.service in over and _has_effect(entry) and entry.event_id not in ends:
            yield f"{entry.step} became {entry.to_state} after the end"


def lost(saga: SagaHistory, consumed: Collection[str]) -> Iterator[str]:
    """Yield events that were emitted and not consumed, of those that a service consumes.

    An abort makes up for a lost event; its saga is checked by the other invariants.
    """
    if any(entry.event_type == ABORT_REQUESTED for entry in saga.entries):
        return
    taken = {entry.event_id for entry in saga.entries}
    for entry in saga.emitters.values():
        if entry.emitted_type in consumed and entry.emitted_id not in taken:
            yield f"{entry.emitted_type} of {entry.step} was not consumed"


def at_rest(backlog: Iterable[Backlog]) -> list[Violation]:
    """Return what is left although all is done: rows that did not go out, messages in queues, dead letters."""
    return [Violation("nothing is left over", None, text) for each in backlog for text in _left(each)]


def _left(backlog: Backlog) -> Iterator[str]:
    counts = {
        "rows in its outbox": backlog.outbox,
        "dead letters": backlog.dead_letters,
        "messages in its queue": backlog.queued,
        "messages in its dead-letter queue": backlog.dead_lettered,
    }
    return (f"{backlog.service} has {count} {what}" for what, count in counts.items() if count)


#: The invariants of one saga by name, each with the function that yields how it is violated.
CHECKS: dict[str, Callable[[SagaHistory], Iterable[str]]] = {
    "every saga ends": ended,
    "undone once, in reverse order": undone_in_reverse,
    "one effect per step": done_once,
    "every move is legal": legal,
    ROOTED: rooted,
    "no event causes itself": acyclic,
    "nothing moves after the end": still_after_the_end,
}


def _has_effect(entry: LogEntry) -> bool:
    return entry.position is not None and entry.to_state != StepState.GATHERING


def _done(saga: SagaHistory, key: tuple[str, str]) -> LogEntry | None:
    """Return the entry with which a step became done."""
    return next((each for each in saga.streams[key] if each.to_state == StepState.COMPLETED), None)
