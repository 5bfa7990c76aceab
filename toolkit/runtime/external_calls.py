"""External steps: a claim is committed, then the external call is made, then its result is committed.

No transaction is open during a call, and calls run side by side; claims and results are committed in batches. After a
crash the call is made again under the same idempotency key. A step that gives up takes a position first (`voiding`),
so that a slower call of the same step can't complete it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from toolkit import failpoints
from toolkit.declaration.events import Event, Refusal
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.retry_policy import GiveUp
from toolkit.errors import EscapedError, PositionTakenError, UnrecordedError
from toolkit.foreign_code.containment import contain, contained
from toolkit.persistence.database_errors import is_contention, is_outage
from toolkit.persistence.step_session import StepSession
from toolkit.protocol.fence import Decision, StepState
from toolkit.protocol.keys import StreamKey
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_results import ExternalResult, ExternalResults, commit
from toolkit.runtime.invocation import Failure, raise_unless_at_fault
from toolkit.runtime.joins import Joined
from toolkit.runtime.transitions import Transition
from toolkit.runtime.unit_of_work import ExternalCall, events_of, stream_key

log = structlog.get_logger("toolkit")

#: A call without a deadline of its own is cut off after this: a broker takes a message back after half an hour.
_LONGEST_CALL = timedelta(minutes=10)

#: Writes the result of a call; returns why a step has spent its retries, where it has.
Write = Callable[[Transition, Event | Failure], GiveUp | None]


class ExternalCalls:
    """Makes the external calls of one service: a bounded number at once, and each step's once at a time."""

    def __init__(self, executor: Executor, *, concurrency: int, batch_size: int) -> None:
        self._executor = executor
        self._failures = executor.failures
        self._results = ExternalResults(executor, batch_size=batch_size)
        self._room = asyncio.Semaphore(concurrency)
        self._running: dict[tuple[StreamKey, Decision], asyncio.Task[None]] = {}

    async def run(self, call: ExternalCall) -> None:
        """Make the call and commit its result; where the same call runs already, wait for that."""
        # The decision is part of the key: a compensation is not done because an older call of its step has ended.
        key = stream_key(call.step, call.message), call.decision
        if (task := self._running.get(key)) is None:
            task = self._running[key] = asyncio.create_task(self._run(call))
            task.add_done_callback(lambda _: self._running.pop(key))
        await asyncio.shield(task)

    async def _run(self, call: ExternalCall) -> None:
        try:
            async with self._room:
                await contain("an external call", self._make(call))
        except PositionTakenError:
            saga_type, saga_id = call.message.envelope.saga
            facts = {"saga_type": saga_type, "saga_id": saga_id, "step": call.step.name}
            log.info("result was written elsewhere", **facts)

    async def _make(self, call: ExternalCall) -> None:
        failpoints.here("claimed", events_of([call.message]))
        match call.decision:
            case Decision.UNDO:
                assert call.compensation is not None  # noqa: S101 -- an undo is claimed by its compensation
                await self._call(call, call.compensation, StepState.COMPENSATING, self._write_compensated)
            case Decision.VOID:
                await self._void(call)
            case _:
                await self._forward(call)

    async def _forward(self, call: ExternalCall) -> None:
        first = call.joined.deadline if call.joined else None
        deadline = self._failures.deadline(call.step, call.message, first=first)
        if self._failures.has_passed(deadline):
            await self._give_up(call, "its deadline has passed")
            return
        result = self._call(call, call.step, StepState.EXECUTING, self._write_forward, deadline=deadline)
        if spent := await result:
            await self._give_up(call, spent.reason)

    async def _give_up(self, call: ExternalCall, reason: str) -> None:
        """Refuse without knowing the outcome: first take the position of a completion, then void the call."""
        call = replace(call, commit_error=None)  # that was the call's error; the void has not been tried
        must_void = self._compensation_of(call.step) is not None

        def write(transition: Transition) -> None:
            if must_void:
                transition.voiding(reason)
            else:
                _refuse_or_dead_letter(transition, reason)

        await self._results.settle(ExternalResult(call, StepState.EXECUTING, write))
        if must_void:
            await self._void(call)

    async def _void(self, call: ExternalCall) -> None:
        """Run the compensation without an original: it undoes the call if it happened, and else prevents it."""
        compensation = self._compensation_of(call.step)
        assert compensation is not None  # noqa: S101 -- only a step with a compensation is ever voided
        saga_id, why = call.message.envelope.saga_id, "the step gave up"
        trigger = call.step.saga.build(compensation.triggers[0], saga_id=saga_id, reason=why)
        is_join = compensation.signature.is_join
        void = replace(call, joined=Joined.for_void(compensation, saga_id, why) if is_join else None)
        await self._call(void, compensation, StepState.VOIDING, self._write_voided, event=trigger)

    def _write_forward(self, transition: Transition, result: Event | Failure) -> GiveUp | None:
        if isinstance(result, Failure):
            return self._failures.retry(transition, result)
        if isinstance(result, Refusal):
            transition.refused(result)
        else:
            transition.completed(result)
        return None

    def _write_voided(self, transition: Transition, result: Event | Failure) -> None:
        if isinstance(result, Failure):
            self._write_failed_compensation(transition, result)
        else:
            _refuse_or_dead_letter(transition, transition.stream.error or "the step gave up")

    def _write_compensated(self, transition: Transition, result: Event | Failure) -> None:
        if isinstance(result, Failure):
            self._write_failed_compensation(transition, result)
        else:
            transition.compensated(result)

    def _write_failed_compensation(self, transition: Transition, failure: Failure) -> None:
        compensation = self._compensation_of(transition.step)
        assert compensation is not None  # noqa: S101 -- it has just been run
        self._failures.retry_compensation(compensation, transition, failure)

    async def _call(
        self,
        call: ExternalCall,
        handler: Step | Compensation,
        expected: StepState,
        write: Write,
        *,
        event: Event | None = None,
        deadline: datetime | None = None,
    ) -> GiveUp | None:
        """Make the external call, then commit its result with the step's own rows."""
        async with self._executor.database.session() as session:
            attempt = self._executor.steps.open_attempt(handler, call.message, joined=call.joined)
            if call.commit_error:
                result: Event | Failure = Failure(call.commit_error)
                attempt.result = result
            else:
                steps = self._executor.steps
                calling = steps.call(attempt, session, event=event, original=call.original, flush=False)
                until = deadline - self._executor.clock.now() if deadline else _LONGEST_CALL
                result = await _bounded(calling, session, min(until, _LONGEST_CALL))
                attempt.end(result)
            if isinstance(result, Failure) and session.in_transaction():
                raise_unless_at_fault(result, call.step)
            outcome = ExternalResult(call, expected, lambda transition: write(transition, result), attempt=attempt)
            try:
                if isinstance(result, Failure | Refusal):
                    await session.rollback()
                    return await self._results.settle(outcome)
                return await contain(handler.name, self._settle_with_rows(outcome, session))
            except Exception as error:
                # A result that can't be committed, for a key of the step's own, is a failed attempt of the step.
                if isinstance(result, Failure) or isinstance(error, PositionTakenError) or _is_no_fault(error):
                    raise
                failure = attempt.result = Failure(error)
                await session.rollback()
        failed = ExternalResult(call, expected, lambda transition: write(transition, failure), attempt=attempt)
        return await self._results.settle(failed)

    async def _settle_with_rows(self, outcome: ExternalResult, session: StepSession) -> GiveUp | None:
        """Commit a result with the rows of its step: alone, if the step has begun a transaction of its own."""
        if session.has_connection:
            (spent,) = await commit([outcome], session, self._executor)
            return spent
        outcome.rows = list(session.new)
        session.expunge_all()
        return await self._results.settle(outcome)

    def _compensation_of(self, step: Step) -> Compensation | None:
        return next((each for each in self._executor.service.compensations if each.of is step), None)


async def _bounded(
    calling: Coroutine[Any, Any, Event | Failure], session: StepSession, within: timedelta
) -> Event | Failure:
    """Cut the external call off in time; once the session is in use, the call is over, and nothing is cut off.

    A task that is cancelled within a statement on SQLite would keep the write lock.
    """
    task = asyncio.create_task(calling)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(within.total_seconds(), 0))
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done and not session.in_transaction():
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            return Failure(TimeoutError("the external call took longer than the step may take"))
    try:
        with contained("the external call"):
            return await task
    except EscapedError as error:  # it cancelled the very task that it runs in
        return Failure(error)


def _refuse_or_dead_letter(transition: Transition, reason: str) -> None:
    if transition.step.is_refusable:
        transition.refused_because(reason)
    else:
        transition.dead_letter(reason)


def _is_no_fault(error: Exception) -> bool:
    """Whether no step is at fault: the database was away, took no entry, or another transaction was in the way."""
    return is_outage(error) or is_contention(error) or isinstance(error, UnrecordedError)
