"""The unit of work of one transaction: log entries, outgoing messages and dead letters, written together at its end.

Nothing leaves it before `write`, and nothing is sent before the commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit import failpoints
from toolkit.declaration.encoding import Original
from toolkit.declaration.events import Event, Saga
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.text_redaction import redact
from toolkit.errors import PositionTakenError, describe
from toolkit.ids import new_id
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Envelope, Message, WireMessage
from toolkit.observability.metrics import Meter
from toolkit.observability.tracing import Tracing, now
from toolkit.persistence.batch_write import BatchWrite
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_ends import ends_of
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import Stream
from toolkit.protocol.fence import Decision, StepState
from toolkit.protocol.keys import SagaKey, StreamKey, reminder_id, timer_id
from toolkit.runtime.after_commit import AfterCommit, Attempt
from toolkit.runtime.ended_sagas import EndedSagas
from toolkit.runtime.join_transitions import JoinTransition
from toolkit.runtime.joins import Joined
from toolkit.runtime.transitions import Transition

#: How long a timer that came too early waits at least.
_CLOCKS_DIFFER = timedelta(seconds=1)
_NONE_SENT: Mapping[str, str | None] = {}


@dataclass(frozen=True, slots=True)
class ExternalCall:
    """A call to an outside system that a transaction has claimed; it is made after the commit.

    With `failed` it is not made: the commit of its result failed with this error before, which counts as its failure.
    """

    decision: Decision
    step: Step
    message: Message
    compensation: Compensation | None = None
    original: Original | None = None
    failed: Exception | None = None
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
        self.outgoing: list[OutboxRow] = []
        self.delayed: list[OutboxRow] = []
        self.dead_letters: list[DeadLetter] = []
        self._timers: dict[str, OutboxRow] = {}
        self._cancelled: list[str] = []
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

    def at(self, step: Step, message: Message) -> Transition:
        """Return the transition of a step that the message causes."""
        return Transition(self, step, message)

    def joining(self, step: Step, message: Message, joined: Joined | None = None) -> JoinTransition:
        """Return the transition of a step that joins, or whose compensation does."""
        return JoinTransition(self, step, message, joined=joined)

    def of_call(self, call: ExternalCall) -> Transition:
        """Return the transition of the step whose call has a result."""
        if call.joined:
            return self.joining(call.step, call.message, call.joined)
        return self.at(call.step, call.message)

    def append(self, stream: Stream, entry: Entry) -> None:
        """Add an entry, and advance its stream."""
        self.entries.append(entry)
        stream.advance(entry)

    def send(self, envelope: Envelope, event: Event, body: bytes | None = None) -> OutboxRow:
        """Send an event; `body` is the event as JSON, if at hand."""
        message = envelope.carry(event, body)
        due_at, is_optional = self.origin.outgoing_due, event.__optional__
        row = OutboxRow(id=envelope.event_id, message=message, due_at=due_at, optional=is_optional)
        self.outgoing.append(row)
        return row

    def send_back(self, wire: WireMessage, row_id: str, due_at: datetime) -> None:
        """Send a message to this service's own queue at `due_at`."""
        self.delayed.append(OutboxRow(id=row_id, message=wire, due_at=due_at, destination=self.origin.queue))

    def set_timer(self, wire: WireMessage, key: StreamKey, deadline: datetime) -> None:
        """Send a message to this service's own queue at a step's deadline, unless the step moves on before.

        It is not handed over to the relay, whose poll finds the few that come due.
        """
        row_id = timer_id(self.origin.queue, key)
        self._timers[row_id] = OutboxRow(id=row_id, message=wire, due_at=deadline, destination=self.origin.queue)

    def set_timer_again(self, wire: WireMessage, key: StreamKey, deadline: datetime) -> None:
        """Send a timer again that came too early; its row differs from the one that is just being delivered."""
        due_at = max(deadline, self.origin.now + _CLOCKS_DIFFER)
        self.send_back(wire, f"{timer_id(self.origin.queue, key)}@{new_id()}", due_at)

    def set_reminder(self, wire: WireMessage, key: StreamKey, number: int, due_at: datetime) -> None:
        """Send a message to this service's own queue when a question may still be open, unless the step moves on."""
        row_id = reminder_id(self.origin.queue, key, number)
        self._timers[row_id] = OutboxRow(id=row_id, message=wire, due_at=due_at, destination=self.origin.queue)

    def cancel_reminder(self, key: StreamKey, number: int) -> None:
        """Delete the reminder that would come next."""
        self._cancel(reminder_id(self.origin.queue, key, number))

    def cancel_timer(self, key: StreamKey) -> None:
        """Delete the timer of a step that has moved on, or whose saga has ended."""
        self._cancel(timer_id(self.origin.queue, key))

    def _cancel(self, row_id: str) -> None:
        if self._timers.pop(row_id, None) is None:
            self._cancelled.append(row_id)

    def span_of_its_own(self, step: Step, message: Message) -> Attempt | None:
        """Return the span of an event that no attempt emitted, such as a fence's; None without tracing."""
        if self._tracing is None:
            return None
        attempt = Attempt(step, message, self._tracing.begin(step.name, message.envelope, queue=self.origin.queue))
        attempt.ended = now()
        self.after_commit.attempted(attempt)
        return attempt

    # -- dead letters ------------------------------------------------------------------------------------------

    def keep(self, reason: str, error: str, message: WireMessage, **facts: object) -> None:
        """Keep a message as a dead letter; `facts` are further fields of `DeadLetter`."""
        origin = self.origin
        letter = {"service": origin.service, "reason": reason, "error": error, "message": message, "at": origin.now}
        self.dead_letters.append(DeadLetter(id=new_id(), **letter, **facts))  # type: ignore[arg-type]  # by name

    def unreadable(self, item: Unreadable) -> None:
        """Keep a message that can't be decoded."""
        self.keep(item.reason, item.detail, item.wire, saga_type=item.saga_type)

    def misdirected(self, message: Message, error: str) -> None:
        """Keep a coordinator's command that its step can't take."""
        address, event = message.envelope.address, message.envelope.event_type
        text = f"{address.verb} {address.step} came with {event}: {error}" if address else error
        self.keep("wrong command", text, _as_delivered(message))

    def unrecordable(self, item: Message | Unreadable, error: BaseException) -> None:
        """Keep a message for which the saga log takes neither an outcome nor a failure."""
        text = describe(error)
        if isinstance(item, Message):
            text = redact(type(item.event), item.body, text)
        self.keep("not recordable", text, _as_delivered(item))

    def pruned(self, message: Message) -> None:
        """Keep a message whose saga may have been pruned: the log no longer shows whether it was handled."""
        error = f"{message.envelope.event_type} is older than what was pruned from the saga log"
        self.keep("older than the log", error, _as_delivered(message))

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
            self.send(envelope, event)
        batch = BatchWrite(
            entries=self.entries,
            has_arrivals=self.has_arrivals,
            rows=[*self.outgoing, *self.delayed, *self._timers.values()],
            sent=[*sent, *self._cancelled],
            ends=ends_of(self.ends.received, at=self.origin.now),
            dead_letters=self.dead_letters,
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
        self.after_commit.report(meter, self.entries, self.dead_letters)


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


def _as_delivered(item: Message | Unreadable) -> WireMessage:
    return item.wire if isinstance(item, Unreadable) else item.on_attempt(item.envelope.attempt)
