"""Runs the functions of steps and compensations inside the transaction of their batch.

In an optimistic batch no step has a savepoint. Where one fails, or refuses after it wrote, the batch falls back: it is
rolled back and executed again, each step in a savepoint of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from toolkit.declaration.encoding import Original, encode
from toolkit.declaration.events import Event, Refusal
from toolkit.declaration.participant import Compensation, Step
from toolkit.errors import NotCommittedError, PositionTakenError, RowsNotWrittenError, StepError, describe
from toolkit.messaging.envelope import Message
from toolkit.observability.tracing import Tracing
from toolkit.persistence.batch_transaction import BatchTransaction
from toolkit.persistence.database_errors import is_contention, is_outage, recording
from toolkit.persistence.plain_reads import PlainReads
from toolkit.persistence.step_session import StepSession
from toolkit.runtime.after_commit import Attempt
from toolkit.runtime.invocation import Failure, Invocation, bounded, raise_unless_at_fault
from toolkit.runtime.joins import Joined
from toolkit.runtime.transitions import Transition
from toolkit.runtime.unit_of_work import ExternalCall, UnitOfWork, stream_key

#: The attempt that an earlier, rolled-back execution of the batch made; None if it made none.
Known = Callable[[Step | Compensation, Message], Attempt | None]

_NO_SPAN = nullcontext()


@dataclass(slots=True)
class Transaction:
    """The transaction that executes one batch."""

    database: BatchTransaction
    work: UnitOfWork
    known: Known
    is_optimistic: bool
    is_alone: bool
    attempts: list[Attempt] = field(default_factory=list)
    #: The external calls that the current message has claimed.
    calls: list[ExternalCall] = field(default_factory=list)

    @property
    def only_attempt(self) -> Attempt | None:
        """The attempt of a message that is alone in its batch, where no other step was run."""
        return self.attempts[0] if self.is_alone and len(self.attempts) == 1 else None

    def session_for(self, handler: Step | Compensation) -> StepSession | None:
        """Return the batch's session if the function asks for one."""
        return self.database.session if handler.signature.session else None


class FallbackError(Exception):
    """An optimistic batch holds a step that failed, or that refused after it wrote.

    The result of a message that is alone in its batch is `known`: its step need not run again. So is that of a step
    that was cut off, since its neighbours would wait as long once more.
    """

    def __init__(self, attempt: Attempt | None = None) -> None:
        super().__init__()
        self._attempt = attempt

    def known(self, handler: Step | Compensation, message: Message) -> Attempt | None:
        """Return the attempt, if it was this handler's with this message."""
        attempt = self._attempt
        return attempt if attempt and attempt.handler is handler and attempt.message is message else None


class StepRunner:
    """Runs the functions of one service; `max_body` is the largest event, in bytes, that a step may emit."""

    def __init__(self, invocation: Invocation, *, queue: str, max_body: int, tracing: Tracing | None) -> None:
        self._invocation = invocation
        self._queue = queue
        self._max_body = max_body
        self._tracing = tracing
        self._plain_reads = PlainReads()

    async def run(
        self,
        handler: Step | Compensation,
        transition: Transition,
        tx: Transaction,
        *,
        original: Original | None = None,
        joined: Joined | None = None,
    ) -> Event | Failure:
        """Run the function, unless an earlier execution of the batch did; return its result."""
        message = transition.message
        if (attempt := tx.known(handler, message)) is None:
            attempt = self.open_attempt(handler, message, joined=joined)
            run = self._run_optimistically if tx.is_optimistic else self._run_in_savepoint
            await run(attempt, tx, original)
        attempt.joined = attempt.joined or joined  # one that failed at its commit was opened without
        transition.attempted(attempt)
        assert attempt.result is not None  # noqa: S101 -- it has been run
        return attempt.result

    def open_attempt(self, handler: Step | Compensation, message: Message, *, joined: Joined | None = None) -> Attempt:
        """Return an attempt that begins now; the span of a join has links to its other causes."""
        begin = self._tracing.begin if self._tracing else None
        span = begin(handler.name, message, queue=self._queue) if begin else None
        if span and joined:
            for event in joined.gathered:
                if event.event_id != message.envelope.event_id:
                    span.link(event.traceparent)
        return Attempt(handler, message, span, joined=joined)

    def fail(self, handler: Step | Compensation, message: Message, error: Exception) -> Attempt:
        """Return an attempt that failed with this error at its commit."""
        attempt = self.open_attempt(handler, message)
        attempt.result = Failure(error)
        return attempt

    async def call(
        self,
        attempt: Attempt,
        session: StepSession | None,
        *,
        event: Event | None = None,
        original: Original | None = None,
        flush: bool = True,
    ) -> Event | Failure:
        """Call the attempt's function inside the attempt's span; `event` replaces the message's, for a void."""
        message = attempt.message
        with attempt.span.current() if attempt.span else _NO_SPAN:
            result = await self._invocation.attempt(
                attempt.handler,
                event or message.event,
                session,
                saga_id=message.envelope.saga_id,
                original=original,
                joined=partial(attempt.joined.arguments, message) if attempt.joined else None,
                flush=flush,
            )
        return result if isinstance(result, Failure) else self._encoded(attempt, result)

    def _encoded(self, attempt: Attempt, event: Event) -> Event | Failure:
        """Encode the event as it is now; one that no other service could decode fails its attempt."""
        saga, saga_id = attempt.step.saga, attempt.message.envelope.saga_id
        try:
            attempt.body = encode(event, saga=saga, saga_id=saga_id, most=self._max_body)
        except StepError as error:
            return Failure(error)
        return event

    async def _run_in_savepoint(self, attempt: Attempt, tx: Transaction, original: Original | None) -> None:
        """Run the function in a savepoint, and keep its writes only if it succeeded."""
        handler = attempt.handler
        session = tx.session_for(handler)
        savepoint = await session.begin_nested() if session else None
        result = await bounded(self.call(attempt, session, original=original), handler, session)
        attempt.end(result)
        if isinstance(result, Failure):
            raise_unless_at_fault(result, handler)
            if savepoint and (not savepoint.is_active or tx.database.connection.invalidated):
                # It ended the transaction, or cut off its own statement: its neighbours can't use the connection.
                raise StepError(f"{handler.name} spoilt its transaction: {describe(result.error)}") from result.error
        if savepoint:
            is_undone = isinstance(result, Failure | Refusal)
            await (savepoint.rollback() if is_undone else savepoint.commit())
        if isinstance(result, Failure):
            await _check_that_no_replica_was_faster(handler, attempt.message, tx)

    async def _run_optimistically(self, attempt: Attempt, tx: Transaction, original: Original | None) -> None:
        """Run the function without a savepoint; a failure, or a refusal after a write, ends the whole batch.

        Raises:
            FallbackError: the batch must be executed again, each step in a savepoint.
        """
        handler = attempt.handler
        if session := tx.session_for(handler):
            if session.dirty or session.deleted:  # else the changes of two steps would be mixed
                with writing(tx):
                    await tx.database.flush()
            session.begin_step()
        tx.attempts.append(attempt)
        result = await bounded(self.call(attempt, session, original=original, flush=False), handler, session)
        attempt.end(result)
        is_known = tx.only_attempt or (isinstance(result, Failure) and result.was_cut)
        fallback = FallbackError(attempt if is_known else None)
        if isinstance(result, Failure):
            raise_unless_at_fault(result, handler)
            raise fallback from result.error
        if isinstance(result, Refusal) and session:
            is_changed = session.dirty or session.deleted or session.has_new
            if is_changed or not await self._only_read(session, tx):
                raise fallback

    async def _only_read(self, session: StepSession, tx: Transaction) -> bool:
        if not (executed := list(session.executed)):
            return True
        return await self._plain_reads.are_all(executed, tx.database.connection)


@contextmanager
def writing(tx: Transaction) -> Iterator[None]:
    """Distinguish errors of the toolkit's own statements from those of the rows that the steps left to be written.

    Raises:
        FallbackError: such a row can't be written in an optimistic batch; which step it belongs to is known only where
            one step was run.
        UnrecordedError: a statement failed.
    """
    try:
        with recording():
            yield
    except NotCommittedError as error:
        raise (error.__cause__ or error) from None
    except RowsNotWrittenError as error:
        cause = error.__cause__ or error
        if (attempt := tx.only_attempt) and isinstance(cause, Exception):
            attempt.result = failure = Failure(cause)
            raise_unless_at_fault(failure, attempt.handler)
            raise FallbackError(attempt) from cause
        if not tx.is_optimistic or is_contention(cause) or is_outage(cause):
            raise cause from None
        raise FallbackError from cause


async def _check_that_no_replica_was_faster(handler: Step | Compensation, message: Message, tx: Transaction) -> None:
    """Return if the attempt failed by itself.

    Raises:
        PositionTakenError: another replica did it meanwhile; a key of the step's own tables was in the way.
    """
    step = handler if isinstance(handler, Step) else handler.of
    key = stream_key(step, message)
    streams = await tx.database.read_streams([message.envelope.saga_id])
    written = streams.get(key)
    if written and written.position > tx.work.stream(key).position:
        raise PositionTakenError(f"{handler.name} was done by another replica meanwhile")
