"""Steps that touch the outside world: a claim is committed, then the call is made, then its outcome is committed.

No transaction is open during the call, and calls are made side by side; claims and outcomes are committed in batches.
After a crash a call is made again under the same idempotency key, and whoever gives up takes a position first
(`voiding`), so that a slower call of the same step can't complete it any more.
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
from toolkit.persistence.saga_log import StreamKey
from toolkit.persistence.step_session import StepSession
from toolkit.protocol.fence import Decision, StepState
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_results import ExternalResult, ExternalResults, commit
from toolkit.runtime.invocation import Failure, blame
from toolkit.runtime.unit_of_work import ExternalCall, UnitOfWork, events_of, stream_key

log = structlog.get_logger("toolkit")

#: A call without a deadline of its own is cut off after this: a broker takes back what is held for half an hour.
_LONGEST_CALL = timedelta(minutes=10)


class ExternalCalls:
    """Makes the outside calls of one service, a bounded number at once, and each step's once at a time."""

    def __init__(self, executor: Executor, *, concurrency: int, batch_size: int) -> None:
        self._executor = executor
        self._results = ExternalResults(executor, batch_size=batch_size)
        self._room = asyncio.Semaphore(concurrency)
        self._running: dict[tuple[StreamKey, Decision], asyncio.Task[None]] = {}

    async def run(self, call: ExternalCall) -> None:
        """Make the call and commit its outcome; the same call that is under way already is waited for."""
        # The decision is part of the key: a compensation is not done because an older call of its step has ended.
        key = stream_key(call.step, call.message), call.decision
        if (task := self._running.get(key)) is None:
            task = self._running[key] = asyncio.create_task(self._run(call))
            task.add_done_callback(lambda _: self._running.pop(key))
        await asyncio.shield(task)

    async def _run(self, call: ExternalCall) -> None:
        try:
            async with self._room:
                await contain("a call to the outside", self._act(call))
        except PositionTakenError:
            saga_type, saga_id = call.message.envelope.saga
            facts = {"saga_type": saga_type, "saga_id": saga_id, "step": call.step.name}
            log.info("outcome was written elsewhere", **facts)

    async def _act(self, call: ExternalCall) -> None:
        failpoints.here("claimed", events_of([call.message]))
        match call.decision:
            case Decision.UNDO:
                await self._undo(call)
            case Decision.VOID:
                await self._void(call)
            case _:
                await self._forward(call)

    async def _forward(self, call: ExternalCall) -> None:
        if self._executor.is_late(call.step, call.message):
            await self._give_up(call, "its deadline has passed")
            return
        deadline = self._executor.deadline(call.step, call.message)
        result = self._call(call, call.step, StepState.EXECUTING, self._write_forward, deadline=deadline)
        if spent := await result:
            await self._give_up(call, spent.reason)

    async def _give_up(self, call: ExternalCall, reason: str) -> None:
        """Refuse without knowing the outcome: first nobody may complete the step any more, then it is undone."""
        call = replace(call, failed=None)  # that was the call's error; the void has not been tried
        must_void = self._compensation_of(call.step) is not None

        def write(work: UnitOfWork) -> None:
            if must_void:
                work.voiding(call.step, call.message, reason)
            else:
                _refuse_or_dead_letter(call, reason, work)

        await self._results.settle(ExternalResult(call, StepState.EXECUTING, write))
        if must_void:
            await self._void(call)

    async def _void(self, call: ExternalCall) -> None:
        """Run the compensation with no original: if it happened, undo it; if not, see that it never will."""
        compensation = self._compensation_of(call.step)
        assert compensation is not None  # noqa: S101 -- only a step with a compensation is ever voided
        saga_id = call.message.envelope.saga_id
        trigger = call.step.saga.build(compensation.triggers[0], saga_id=saga_id, reason="the step gave up")
        await self._call(call, compensation, StepState.VOIDING, self._write_voided, event=trigger)

    async def _undo(self, call: ExternalCall) -> None:
        assert call.compensation is not None  # noqa: S101 -- an undo is claimed by its compensation
        await self._call(call, call.compensation, StepState.COMPENSATING, self._write_undone)

    def _write_forward(self, call: ExternalCall, result: Event | Failure, work: UnitOfWork) -> GiveUp | None:
        if isinstance(result, Failure):
            return self._executor.fail(call.step, call.message, result, work)
        if isinstance(result, Refusal):
            work.refused(call.step, call.message, result)
        else:
            work.completed(call.step, call.message, result)
        return None

    def _write_voided(self, call: ExternalCall, result: Event | Failure, work: UnitOfWork) -> None:
        if isinstance(result, Failure):
            self._write_failed_compensation(call, result, work)
        else:
            _refuse_or_dead_letter(call, work.stream(call.step, call.message).error or "the step gave up", work)

    def _write_undone(self, call: ExternalCall, result: Event | Failure, work: UnitOfWork) -> None:
        if isinstance(result, Failure):
            self._write_failed_compensation(call, result, work)
        else:
            work.compensated(call.step, call.message, result)

    def _write_failed_compensation(self, call: ExternalCall, failure: Failure, work: UnitOfWork) -> None:
        compensation = self._compensation_of(call.step)
        assert compensation is not None  # noqa: S101 -- it has just been run
        self._executor.fail_compensation(compensation, call.message, failure, work)

    async def _call(
        self,
        call: ExternalCall,
        handler: Step | Compensation,
        expected: StepState,
        write: Callable[[ExternalCall, Event | Failure, UnitOfWork], GiveUp | None],
        *,
        event: Event | None = None,
        deadline: datetime | None = None,
    ) -> GiveUp | None:
        """Make the outside call, then have its outcome committed, with what the step wrote."""
        async with self._executor.database.session() as session:
            attempt = self._executor.open_attempt(handler, call.message)
            if call.failed:
                result: Event | Failure = Failure(call.failed)
                attempt.result = result
            else:
                attempted = self._executor.call(attempt, session, event=event, original=call.original, flush=False)
                result = await self._bounded(attempted, session, deadline)
                attempt.end(result)
            if isinstance(result, Failure) and session.in_transaction():
                blame(result, call.step)
            outcome = ExternalResult(call, expected, lambda work: write(call, result, work), attempt=attempt)
            try:
                if isinstance(result, Failure | Refusal):
                    await session.rollback()
                    return await self._results.settle(outcome)
                return await contain(handler.name, self._settle_with_rows(outcome, session))
            except Exception as error:
                # What can't be committed, for a key of its own say, is a failed attempt of its step.
                if isinstance(result, Failure) or isinstance(error, PositionTakenError) or _is_of_nobody(error):
                    raise
                failure = attempt.result = Failure(error)
                await session.rollback()
        failed = ExternalResult(call, expected, lambda work: write(call, failure, work), attempt=attempt)
        return await self._results.settle(failed)

    async def _settle_with_rows(self, outcome: ExternalResult, session: StepSession) -> GiveUp | None:
        """Commit an outcome with what its step wrote: alone, if it has begun a transaction of its own to do so."""
        if session.has_connection:
            (spent,) = await commit([outcome], session, self._executor)
            return spent
        outcome.rows = list(session.new)
        session.expunge_all()
        return await self._results.settle(outcome)

    async def _bounded(
        self, attempt: Coroutine[Any, Any, Event | Failure], session: StepSession, deadline: datetime | None
    ) -> Event | Failure:
        """Cut the outside call off at its deadline; once the session is in use, the call is over and nothing is cut.

        A task cancelled within a statement on SQLite would leave the write lock with nobody.
        """
        until = min(deadline - self._executor.clock.now(), _LONGEST_CALL) if deadline else _LONGEST_CALL
        task = asyncio.create_task(attempt)
        try:
            done, _ = await asyncio.wait({task}, timeout=max(until.total_seconds(), 0))
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done and not session.in_transaction():
            task.cancel()
            await asyncio.wait({task})
            if task.cancelled():
                return Failure(TimeoutError("the outside call took longer than the step may take"))
        try:
            with contained("the outside call"):
                return await task
        except EscapedError as error:  # it cancelled the very task that it runs in
            return Failure(error)

    def _compensation_of(self, step: Step) -> Compensation | None:
        return next((each for each in self._executor.service.compensations if each.of is step), None)


def _refuse_or_dead_letter(call: ExternalCall, reason: str, work: UnitOfWork) -> None:
    if call.step.is_refusable:
        work.refused_for(call.step, call.message, reason)
    else:
        work.dead_letter(call.step, call.message, reason)


def _is_of_nobody(error: Exception) -> bool:
    """Whether the database was away or did not take an entry, or another transaction was in the way."""
    return is_outage(error) or is_contention(error) or isinstance(error, UnrecordedError)
