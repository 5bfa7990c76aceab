"""The unit of work of one transaction: log entries, outgoing messages and dead letters, written together at its end.

Nothing leaves it before `write`, and nothing is sent before the commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from toolkit import failpoints
from toolkit.declaration.encoding import Original
from toolkit.declaration.events import Saga
from toolkit.declaration.participant import Compensation, Step
from toolkit.errors import PositionTakenError
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message
from toolkit.observability.metrics import Meter
from toolkit.observability.tracing import Tracing, now
from toolkit.persistence.batch_write import BatchWrite
from toolkit.persistence.saga_ends import ends_of
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import Stream
from toolkit.protocol.fence import Decision, StepState
from toolkit.protocol.keys import SagaKey, StreamKey
from toolkit.runtime.after_commit import AfterCommit, Attempt
from toolkit.runtime.ended_sagas import EndedSagas
from toolkit.runtime.joins import Joined
from toolkit.runtime.kept_messages import KeptMessages
from toolkit.runtime.outgoing import Outgoing

_NONE_SENT: Mapping[str, str | None] = {}


@dataclass(frozen=True, slots=True)
class ExternalCall:
    """A call to an outside system that a transaction has claimed; it is made after the commit.

    With `commit_error` it is not made: the commit of its result raised this before, which counts as its failure.
    """

    decision: Decision
    step: Step
    message: Message
    compensation: Compensation | None = None
    original: Original | None = None
    commit_error: Exception | None = None
    joined: Joined | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The writing service, the time, and the due time of outgoing rows unless they are sent at the commit.

    `final_steps` are those that nothing can undo.
    """

    service: str
    queue: str
    now: datetime
    outgoing_due: datetime
    final_steps: frozenset[str] = frozenset()


class UnitOfWork:
    """Collects what one transaction writes."""

    def __init__(self, origin: Origin, streams: dict[StreamKey, Stream], *, tracing: Tracing | None = None) -> None:
        self.origin = origin
        self.entries: list[Entry] = []
        self.outgoing = Outgoing(queue=origin.queue, now=origin.now, due_at=origin.outgoing_due)
        self.kept = KeptMessages(origin.service, origin.now)
        #: Whether an entry keeps the event that arrived: only those of joins do.
        self.has_arrivals = False
        self.ends = EndedSagas(streams)
        self.after_commit = AfterCommit(tracing)
        self._streams = streams
        self._tracing = tracing

    # -- reading -----------------------------------------------------------------------------------------------

    def stream(self, key: StreamKey) -> Stream:
        """Return the stream of a step of a saga, empty where the log has none."""
        if (stream := self._streams.get(key)) is None:
            stream = self._streams[key] = Stream()
        return stream

    def knows(self, saga: SagaKey) -> bool:
        """Whether the log has an entry of the saga."""
        return any(stream.saga_state for key, stream in self._streams.items() if key[:2] == saga)

    def was_taken(self, key: StreamKey, message: Message, step: Step) -> bool:
        """Whether the stream of a former step holds the message, or the event that started the saga."""
        stream = self._streams.get(key)
        if stream is None or stream.state is None:
            return False
        return message.envelope.event_id in stream.event_ids or type(message.event) is step.saga.starts_with

    # -- collecting --------------------------------------------------------------------------------------------

    def append(self, stream: Stream, entry: Entry) -> None:
        """Add an entry, and advance its stream."""
        self.entries.append(entry)
        stream.advance(entry)

    def span_of_its_own(self, step: Step, message: Message) -> Attempt | None:
        """Return the span of an event that no attempt emitted, such as a fence's; None without tracing."""
        if self._tracing is None:
            return None
        attempt = Attempt(step, message, self._tracing.begin(step.name, message, queue=self.origin.queue))
        attempt.ended = now()
        self.after_commit.attempted(attempt)
        return attempt

    # -- the end of the transaction ----------------------------------------------------------------------------

    async def write(
        self,
        write: Callable[[BatchWrite], Awaitable[bool]],
        *,
        sent: Mapping[str, str | None] = _NONE_SENT,
        unread: Collection[SagaKey] = (),
    ) -> None:
        """Write all of it by `write`, and delete the sent rows: their ids, with the types of their events.

        Raises:
            PositionTakenError: another transaction moved one of the streams first, or the log shows a note or the end
                of one of the `unread` sagas, whose streams were taken as empty.
        """
        for envelope, event in self.ends.messages(self.origin.now):
            self.outgoing.send(envelope, event)
        batch = BatchWrite(
            entries=self.entries,
            has_arrivals=self.has_arrivals,
            rows=self.outgoing.rows(),
            sent=[*sent, *self.outgoing.cancelled],
            ends=ends_of(self.ends.received, at=self.origin.now),
            dead_letters=self.kept.dead_letters,
            unread=list(unread),
        )
        if not await write(batch):
            raise PositionTakenError("the log shows more of a saga than was read")
        failpoints.here("log-written", self.outcomes())
        failpoints.here("outbox-written", self.outcomes())
        failpoints.here("deleted", sent.values())

    def outcomes(self) -> Iterator[str | None]:
        """Yield the events that made a step emit an event, or that a join keeps; the claim of a call is no outcome."""
        return (entry.event_type for entry in self.entries if entry.emitted_id or _is_kept(entry))

    def report(self, meter: Meter) -> None:
        """Log, count and trace what was committed."""
        self.after_commit.report(meter, self.entries, self.kept.dead_letters)


def _is_kept(entry: Entry) -> bool:
    return entry.to_state == StepState.GATHERING


def saga_ids_of(items: Iterable[Message | Unreadable]) -> list[str]:
    """Return the ids of the sagas that these messages belong to."""
    return [item.envelope.saga_id for item in items if isinstance(item, Message) and item.envelope.saga_id]


def sagas_of(items: Iterable[Message | Unreadable]) -> set[SagaKey]:
    """Return the sagas that these messages belong to."""
    return {item.envelope.saga for item in items if isinstance(item, Message) and item.envelope.saga_id}


def events_of(items: Iterable[Message | Unreadable]) -> Iterator[str]:
    """Yield the names of the events in these messages."""
    return (item.envelope.event_type for item in items if isinstance(item, Message))


def stream_key(step: Step, message: Message) -> StreamKey:
    """Return the key of this step's stream in the message's saga."""
    return step.saga.name, message.envelope.saga_id, step.name


def is_of(saga: Saga, message: Message) -> bool:
    """Whether the message belongs to a saga of this type."""
    return message.envelope.saga_type == saga.name
