"""The one transaction: messages in; fence, the steps' own rows, saga log and outbox committed together.

A batch is first executed optimistically: no step has a savepoint, and what the steps wrote is flushed together. Where
one fails, or refuses after it wrote, all of it is rolled back and executed again, each step in a savepoint of its own,
so that it leaves nothing behind and takes nobody with it. A batch of one is the simplest case: how its step ended is
known by then, and only that is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.configuration.settings import LARGEST_MESSAGE, SHORTEST_RETENTION
from toolkit.declaration.encoding import Original, encode
from toolkit.declaration.events import AbortRequested, EndRequested, Event, Refusal, SagaEnded
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.retry_policy import GiveUp, TryAgain, after_failure
from toolkit.declaration.service import Service
from toolkit.errors import PositionTakenError, StepError, describe
from toolkit.foreign_code.containment import contained
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message
from toolkit.observability.metrics import Meter
from toolkit.observability.tracing import Tracing
from toolkit.persistence import pruning_watermark, saga_log
from toolkit.persistence.availability import Availability
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_contention, is_outage, recording
from toolkit.persistence.plain_reads import PlainReads
from toolkit.persistence.saga_log_streams import Stream, read_streams
from toolkit.persistence.step_session import StepSession
from toolkit.protocol.fence import Arrival, Decision, StepState, decide
from toolkit.runtime.after_commit import Attempt
from toolkit.runtime.invocation import Failure, Invocation, blame, bounded
from toolkit.runtime.relay import Relay
from toolkit.runtime.unit_of_work import ExternalCall, Origin, UnitOfWork, events_of, is_of, sagas_of, stream_key

log = structlog.get_logger("toolkit")

#: So many nudges and aborts are remembered as answered, so that their copies are not: enough for a storm of them.
_MOST_ANSWERED = 10_000

#: The attempt that was made before, in a transaction that was rolled back; None if none was.
Known = Callable[[Step | Compensation, Message], Attempt | None]


@dataclass(slots=True)
class Transaction:
    """What one batch is executed in."""

    session: StepSession
    work: UnitOfWork
    known: Known
    is_optimistic: bool
    is_alone: bool
    attempts: int = 0


class _FallbackError(Exception):
    """A batch that was executed optimistically holds a step that did not just succeed, or write nothing and refuse.

    What the first step of a message that is alone came to is `known`: it need not be run again. So is what was cut off,
    since its neighbours would wait as long once more.
    """

    def __init__(self, attempt: Attempt | None = None) -> None:
        super().__init__()
        self._attempt = attempt

    def known(self, handler: Step | Compensation, message: Message) -> Attempt | None:
        """Return the attempt, if it was this handler's with this message."""
        attempt = self._attempt
        return attempt if attempt and attempt.handler is handler and attempt.message is message else None


class Executor:
    """Executes messages of one service."""

    def __init__(
        self,
        service: Service,
        *,
        queue: str,
        database: Database,
        invocation: Invocation,
        relay: Relay,
        clock: Clock,
        timeouts: dict[str, timedelta],
        tracing: Tracing | None = None,
        max_body: int = LARGEST_MESSAGE,
        former_steps: Collection[tuple[str, str]] = (),
    ) -> None:
        """Prepare; `former_steps` stand in the log by saga type and name, and this release declares them no more."""
        self.service = service
        self.database = database
        self.invocation = invocation
        self.relay = relay
        self.clock = clock
        self._queue = queue
        self._timeouts = timeouts
        self._max_body = max_body
        self._former_steps = former_steps
        self._tracing = tracing
        self._meter = Meter(service)
        self._plain_reads = PlainReads()
        self.availability = Availability(database, service=service.name, clock=clock)
        #: How many transactions have written to the saga log.
        self.recorded = 0
        self._answered: dict[str, None] = {}

    async def execute(
        self, batch: Sequence[Message | Unreadable], *, failed: Exception | None = None
    ) -> list[list[ExternalCall]]:
        """Commit the batch, hand what goes out to the relay, and return the outside calls that follow, by message.

        With `failed`, no step is run: each fails with this error, which its commit brought about before.

        Raises:
            ContentionError: another replica was in the way; execute again.
            UnrecordedError: a statement of the toolkit's own failed.
        """
        if failed is not None:
            return await self._execute(batch, lambda handler, message: self._failed(handler, message, failed))
        try:
            return await self._execute(batch, is_optimistic=True)
        except _FallbackError as fallback:
            return await self._execute(batch, fallback.known)

    async def _execute(
        self, batch: Sequence[Message | Unreadable], known: Known = lambda *_: None, *, is_optimistic: bool = False
    ) -> list[list[ExternalCall]]:
        with self.relay.deletion() as delete:
            async with self.database.transaction() as session:
                connection = await session.connection()
                with recording():
                    work = self.begin(await read_streams(connection, sagas_of(batch)))
                failpoints.here("fenced", events_of(batch))
                tx = Transaction(session, work, known, is_optimistic, is_alone=len(batch) == 1)
                calls = [await self._take(item, tx) for item in batch]
                if is_optimistic:
                    await _flush(session)
                    failpoints.here("step-written", events_of(batch))
                with recording():
                    await work.write(connection)
                    await delete(connection)
                session.outcomes = work.outcomes()
        self.finish(work)
        self._meter.batch(len(batch))
        return calls

    def begin(self, streams: dict[saga_log.StreamKey, Stream]) -> UnitOfWork:
        """Return an empty unit of work upon these streams."""
        due = self.relay.due_if_handed_over()
        origin = Origin(service=self.service.name, queue=self._queue, now=self.clock.now(), outgoing_due=due)
        return UnitOfWork(origin, streams, tracing=self._tracing)

    def open_attempt(self, handler: Step | Compensation, message: Message) -> Attempt:
        """Return an attempt that begins now."""
        begin = self._tracing.begin if self._tracing else None
        span = begin(handler.name, message.envelope, queue=self._queue) if begin else None
        return Attempt(handler, message, span)

    async def call(
        self,
        attempt: Attempt,
        session: StepSession,
        *,
        event: Event | None = None,
        original: Original | None = None,
        flush: bool = True,
    ) -> Event | Failure:
        """Run the attempt's function; what it does is part of the attempt's span."""
        message = attempt.message
        with attempt.span.current() if attempt.span else nullcontext():
            result = await self.invocation.attempt(
                attempt.handler,
                event or message.event,
                session,
                saga_id=message.envelope.saga_id,
                original=original,
                flush=flush,
            )
        return result if isinstance(result, Failure) else self._encoded(attempt, result)

    def _encoded(self, attempt: Attempt, event: Event) -> Event | Failure:
        """Keep an event as it is at this moment; one that no other service could read fails its attempt."""
        saga, saga_id = attempt.step.saga, attempt.message.envelope.saga_id
        try:
            attempt.body = encode(event, saga=saga, saga_id=saga_id, most=self._max_body)
        except StepError as error:
            return Failure(error)
        return event

    async def dead_letter(self, item: Message | Unreadable, error: BaseException) -> None:
        """Keep a message whose outcome the saga log does not take, as a dead letter."""
        work = self.begin({})
        work.unrecordable(item, error)
        async with self.database.transaction() as session:
            await work.write(await session.connection())
        self.finish(work)

    def finish(self, work: UnitOfWork) -> None:
        """Send what was committed, and tell of it."""
        self.recorded += bool(work.entries)
        failpoints.here("committed", work.outcomes())
        self.relay.hand_over(work.outgoing, work.delayed)
        self._answered.update(dict.fromkeys(work.answered))
        while len(self._answered) > _MOST_ANSWERED:
            del self._answered[next(iter(self._answered))]
        try:
            with contained("telling of a commit"):
                work.report(self._meter)
        except Exception:  # it is committed: to execute it again would not help
            # Past structlog, since a processor of the service's may be what fails.
            logging.getLogger("toolkit").exception("what was committed could not be told")

    def deadline(self, step: Step, message: Message) -> datetime | None:
        """Return when the step has to refuse: by its own timeout, or by the whole saga's deadline."""
        if not step.is_refusable:
            return None
        timeout = self._timeouts.get(step.name, step.timeout)
        own = message.envelope.occurred_at + timeout if timeout else None
        return min((moment for moment in (own, message.envelope.deadline) if moment), default=None)

    def is_late(self, step: Step, message: Message) -> bool:
        """Whether the step's deadline has passed."""
        deadline = self.deadline(step, message)
        return deadline is not None and self.clock.now() >= deadline

    def fail(self, step: Step, message: Message, failure: Failure, work: UnitOfWork) -> GiveUp | None:
        """Write a retry of a failed forward attempt, or return why there is none."""
        verdict = after_failure(
            failure.error,
            policy=step.retry,
            attempt=work.stream(step, message).retries + 1,
            now=self.clock.now(),
            deadline=self.deadline(step, message),
        )
        if isinstance(verdict, GiveUp):
            return verdict
        work.retry(step, message, describe(failure.error), due_at=verdict.due_at)
        return None

    def fail_compensation(
        self, compensation: Compensation, message: Message, failure: Failure, work: UnitOfWork
    ) -> None:
        """Write a retry of a failed compensation, or a dead letter: what is not undone waits for a person."""
        step = compensation.of
        attempt = work.stream(step, message).retries + 1
        verdict = after_failure(
            failure.error, policy=compensation.retry, attempt=attempt, now=self.clock.now(), deadline=None
        )
        if isinstance(verdict, TryAgain):
            work.retry(step, message, describe(failure.error), due_at=verdict.due_at)
        else:
            work.dead_letter(step, message, verdict.reason, traceback=failure.traceback())

    async def _take(self, item: Message | Unreadable, tx: Transaction) -> list[ExternalCall]:
        tx.work.calls = []
        if isinstance(item, Unreadable):
            tx.work.unreadable(item)
        elif isinstance(item.event, SagaEnded):
            tx.work.close(item.envelope.event_id, item.event)
        elif isinstance(item.event, AbortRequested):
            await self._abort(item, tx)
        elif isinstance(item.event, EndRequested):
            if tx.work.has_ended_here(item.envelope):  # else somebody else answers
                self._answer(item.envelope.event_id, item, tx)
        else:
            await self._consume(item, tx)
        return tx.work.calls

    async def _consume(self, message: Message, tx: Transaction) -> None:
        """Give the event to each step and compensation that listens to it."""
        if message.envelope.nudge:
            self._answer(message.envelope.nudge, message, tx)
        if await self._is_forgotten(message, tx):
            tx.work.forgotten(message)
            return
        for step in self.service.steps:
            if type(message.event) in step.triggers and is_of(step.saga, message):
                await self._forward(step, message, tx)
        for compensation in self.service.compensations:
            if type(message.event) in compensation.triggers and is_of(compensation.of.saga, message):
                await self._back(compensation, message, tx)

    def _answer(self, asked: str, message: Message, tx: Transaction) -> None:
        """Have the service that has missed the saga's end told of it, where it is known here; once for each ask.

        Only the service that ended the saga may say so: any other asks that one to.
        """
        end = tx.work.end_of(message.envelope)
        if not end or asked in self._answered:
            return
        if tx.work.has_ended_here(message.envelope):
            tx.work.answer(asked, message.envelope, end)
        else:
            tx.work.ask_for_end(asked, message.envelope)

    async def _is_forgotten(self, message: Message, tx: Transaction) -> bool:
        """Whether the log knows nothing of the saga, and may have known it before it was pruned."""
        return await self._is_pruned(message, tx, message.envelope.occurred_at)

    async def _is_pruned(self, message: Message, tx: Transaction, occurred_at: datetime) -> bool:
        if occurred_at > self.clock.now() - SHORTEST_RETENTION or tx.work.knows(message.envelope.saga):
            return False
        with recording():
            return await pruning_watermark.is_beyond(await tx.session.connection(), occurred_at)

    async def _forward(self, step: Step, message: Message, tx: Transaction) -> None:
        state = tx.work.stream(step, message).state
        decision = decide(Arrival.FORWARD, state)
        if decision is Decision.IGNORE or (state is None and self._was_taken_before(step, message, tx.work)):
            tx.work.ignored(step, message)
        elif state is None and self.is_late(step, message):
            tx.work.refused_for(step, message, "its deadline had passed when the event arrived")
        elif step.external:
            if state is None:
                tx.work.executing(step, message)
            tx.work.calls.append(ExternalCall(decision, step, message))
        else:
            await self._run(step, message, tx)

    def _was_taken_before(self, step: Step, message: Message, work: UnitOfWork) -> bool:
        """Whether a step that is gone took this event, or the saga's first one: under another name it is done."""
        return any(
            work.has_taken((saga_type, message.envelope.saga_id, name), message, step)
            for saga_type, name in self._former_steps
            if saga_type == step.saga.name
        )

    async def _run(self, step: Step, message: Message, tx: Transaction) -> None:
        result = await self._attempt(step, message, tx)
        if isinstance(result, Refusal):
            tx.work.refused(step, message, result)
        elif isinstance(result, Event):
            tx.work.completed(step, message, result)
        elif (spent := self.fail(step, message, result, tx.work)) and step.is_refusable:
            tx.work.refused_for(step, message, spent.reason)
        elif spent:
            tx.work.dead_letter(step, message, spent.reason, traceback=result.traceback())

    async def _back(self, compensation: Compensation, message: Message, tx: Transaction) -> None:
        step = compensation.of
        stream = tx.work.stream(step, message)
        decision = decide(Arrival.COMPENSATION, stream.state)
        if decision is Decision.FENCE and self._was_taken_before(step, message, tx.work):
            tx.work.ignored(step, message)
        elif decision is Decision.FENCE:
            tx.work.fenced(step, message, compensation.emits)
        elif decision is Decision.DEFER:
            tx.work.defer(step, message)
        elif decision is Decision.IGNORE:
            tx.work.ignored(step, message)
            if stream.state is StepState.CONFIRMED:
                self._answer(message.envelope.event_id, message, tx)
        elif step.external:
            if stream.state is StepState.COMPLETED:
                tx.work.compensating(step, message)
            tx.work.calls.append(ExternalCall(decision, step, message, compensation, stream.original))
        else:
            await self._undo(compensation, message, tx)

    async def _undo(self, compensation: Compensation, message: Message, tx: Transaction) -> None:
        original = tx.work.stream(compensation.of, message).original
        result = await self._attempt(compensation, message, tx, original=original)
        if isinstance(result, Failure):
            self.fail_compensation(compensation, message, result, tx.work)
        else:
            tx.work.compensated(compensation.of, message, result)

    async def _abort(self, message: Message, tx: Transaction) -> None:
        """Fence every refusable step that has not begun; the first of them in the saga's order starts the way back.

        Where the saga has ended no step is fenced, and the service that ended it answers with the end. Where it may
        have been pruned no step is fenced either: a saga that was pruned has ended.
        """
        envelope = message.envelope
        if tx.work.end_of(envelope):
            if tx.work.has_ended_here(envelope):
                self._answer(envelope.event_id, message, tx)
            return
        if await self._is_pruned(message, tx, envelope.started_at or envelope.occurred_at):
            saga = {"saga_type": envelope.saga_type, "saga_id": envelope.saga_id}
            log.warning("abort of a saga that may have been pruned; it is ignored", **saga)
            return
        for step in self.service.steps:
            if not (step.is_refusable and is_of(step.saga, message)):
                continue
            decision = decide(Arrival.ABORT, tx.work.stream(step, message).state)
            if decision is Decision.FENCE:
                tx.work.fenced(step, message, step.refusals[0])
            elif decision is Decision.DEFER:
                tx.work.defer(step, message)

    async def _attempt(
        self, handler: Step | Compensation, message: Message, tx: Transaction, *, original: Original | None = None
    ) -> Event | Failure:
        """Run the function, unless that was done before; return what it came to."""
        if (attempt := tx.known(handler, message)) is None:
            attempt = self.open_attempt(handler, message)
            run = self._run_optimistically if tx.is_optimistic else self._run_in_savepoint
            await run(attempt, tx, original)
        tx.work.attempted(attempt)
        assert attempt.result is not None  # noqa: S101 -- it has been run
        return attempt.result

    def _failed(self, handler: Step | Compensation, message: Message, error: Exception) -> Attempt:
        """Return the attempt that brought this error about, at a commit."""
        attempt = self.open_attempt(handler, message)
        attempt.result = Failure(error)
        return attempt

    async def _run_in_savepoint(self, attempt: Attempt, tx: Transaction, original: Original | None) -> None:
        """Run the function in a savepoint, and keep what it wrote only if it succeeded."""
        handler, message = attempt.handler, attempt.message
        savepoint = await tx.session.begin_nested()
        result = await bounded(self.call(attempt, tx.session, original=original), handler, tx.session)
        attempt.end(result)
        if isinstance(result, Failure):
            blame(result, handler)
            if not savepoint.is_active or (await tx.session.connection()).invalidated:
                # It ended the transaction, or cut off its own statement: the connection is of no use to its neighbours.
                raise StepError(f"{handler.name} spoilt its transaction: {describe(result.error)}") from result.error
        if isinstance(result, Failure | Refusal):
            await savepoint.rollback()
        else:
            await savepoint.commit()
        if isinstance(result, Failure):
            await self._see_that_nobody_was_faster(handler, message, tx)

    async def _run_optimistically(self, attempt: Attempt, tx: Transaction, original: Original | None) -> None:
        """Run the function with nothing to fall back on; the first disappointment ends the whole batch."""
        if tx.session.dirty or tx.session.deleted:  # else nobody could tell afterwards who changed what
            await _flush(tx.session)
        new = len(tx.session.new)
        tx.session.executed.clear()
        tx.attempts += 1
        handler, call = attempt.handler, self.call(attempt, tx.session, original=original, flush=tx.is_alone)
        result = await bounded(call, handler, tx.session)
        attempt.end(result)
        is_known = (tx.is_alone and tx.attempts == 1) or (isinstance(result, Failure) and result.was_cut)
        fallback = _FallbackError(attempt if is_known else None)
        if isinstance(result, Failure):
            blame(result, handler)
            raise fallback from result.error
        if isinstance(result, Refusal):
            is_changed = tx.session.dirty or tx.session.deleted or len(tx.session.new) != new
            if is_changed or not await self._only_read(tx):
                raise fallback

    async def _only_read(self, tx: Transaction) -> bool:
        if not (executed := list(tx.session.executed)):
            return True
        return await self._plain_reads.are_all(executed, await tx.session.connection())

    async def _see_that_nobody_was_faster(
        self, handler: Step | Compensation, message: Message, tx: Transaction
    ) -> None:
        """Return if the attempt failed by itself.

        Raises:
            PositionTakenError: another replica did it meanwhile; a key of the step's own tables was in the way.
        """
        step = handler if isinstance(handler, Step) else handler.of
        streams = await read_streams(await tx.session.connection(), [message.envelope.saga_id])
        written = streams.get(stream_key(step, message))
        if written and written.position > tx.work.stream(step, message).position:
            raise PositionTakenError(f"{handler.name} was done by another replica meanwhile")


async def _flush(session: StepSession) -> None:
    """Write what the steps left to be written; an error is that of one of them, and nobody knows whose."""
    try:
        with contained("what the steps left to be written"):
            await session.flush()
    except Exception as error:
        if is_contention(error) or is_outage(error):
            raise
        raise _FallbackError from error
