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
from toolkit.persistence.database import StepSession
from toolkit.persistence.database_errors import is_contention, is_outage
from toolkit.persistence.saga_log import StreamKey
from toolkit.protocol.fence import Decision, StepState
from toolkit.runtime.executor import Execution
from toolkit.runtime.external_results import Outcome, Outcomes, commit
from toolkit.runtime.invocation import Failure, blame
from toolkit.runtime.unit_of_work import Claim, Work, events_of, stream_key

log = structlog.get_logger("toolkit")

#: A call without a deadline of its own is cut off after this: a broker takes back what is held for half an hour.
_LONGEST_CALL = timedelta(minutes=10)


class Isolation:
    """Makes the outside calls of one service, a bounded number at once, and each step's once at a time."""

    def __init__(self, execution: Execution, *, concurrency: int, batch_size: int) -> None:
        self._execution = execution
        self._outcomes = Outcomes(execution, batch_size=batch_size)
        self._room = asyncio.Semaphore(concurrency)
        self._running: dict[tuple[StreamKey, Decision], asyncio.Task[None]] = {}

    async def run(self, claim: Claim) -> None:
        """Make the call and commit its outcome; the same call that is under way already is waited for."""
        # The decision is part of the key: a compensation is not done because an older call of its step has ended.
        key = stream_key(claim.step, claim.message), claim.decision
        if (task := self._running.get(key)) is None:
            task = self._running[key] = asyncio.create_task(self._run(claim))
            task.add_done_callback(lambda _: self._running.pop(key))
        await asyncio.shield(task)

    async def _run(self, claim: Claim) -> None:
        try:
            async with self._room:
                await contain("a call to the outside", self._act(claim))
        except PositionTakenError:
            saga_type, saga_id = claim.message.envelope.saga
            facts = {"saga_type": saga_type, "saga_id": saga_id, "step": claim.step.name}
            log.info("outcome was written elsewhere", **facts)

    async def _act(self, claim: Claim) -> None:
        failpoints.here("claimed", events_of([claim.message]))
        match claim.decision:
            case Decision.UNDO:
                await self._undo(claim)
            case Decision.VOID:
                await self._void(claim)
            case _:
                await self._forward(claim)

    async def _forward(self, claim: Claim) -> None:
        if self._execution.is_late(claim.step, claim.message):
            await self._give_up(claim, "its deadline has passed")
            return
        deadline = self._execution.deadline(claim.step, claim.message)
        result = self._call(claim, claim.step, StepState.EXECUTING, self._write_forward, deadline=deadline)
        if spent := await result:
            await self._give_up(claim, spent.reason)

    async def _give_up(self, claim: Claim, reason: str) -> None:
        """Refuse without knowing the outcome: first nobody may complete the step any more, then it is undone."""
        claim = replace(claim, failed=None)  # that was the call's error; the void has not been tried
        must_void = self._compensation_of(claim.step) is not None

        def write(work: Work) -> None:
            if must_void:
                work.voiding(claim.step, claim.message, reason)
            else:
                _refuse_or_bury(claim, reason, work)

        await self._outcomes.settle(Outcome(claim, StepState.EXECUTING, write))
        if must_void:
            await self._void(claim)

    async def _void(self, claim: Claim) -> None:
        """Run the compensation with no original: if it happened, undo it; if not, see that it never will."""
        compensation = self._compensation_of(claim.step)
        assert compensation is not None  # noqa: S101 -- only a step with a compensation is ever voided
        saga_id = claim.message.envelope.saga_id
        trigger = claim.step.saga.build(compensation.triggers[0], saga_id=saga_id, reason="the step gave up")
        await self._call(claim, compensation, StepState.VOIDING, self._write_voided, event=trigger)

    async def _undo(self, claim: Claim) -> None:
        assert claim.compensation is not None  # noqa: S101 -- an undo is claimed by its compensation
        await self._call(claim, claim.compensation, StepState.COMPENSATING, self._write_undone)

    def _write_forward(self, claim: Claim, result: Event | Failure, work: Work) -> GiveUp | None:
        if isinstance(result, Failure):
            return self._execution.fail(claim.step, claim.message, result, work)
        if isinstance(result, Refusal):
            work.refused(claim.step, claim.message, result)
        else:
            work.completed(claim.step, claim.message, result)
        return None

    def _write_voided(self, claim: Claim, result: Event | Failure, work: Work) -> None:
        if isinstance(result, Failure):
            self._write_failed_compensation(claim, result, work)
        else:
            _refuse_or_bury(claim, work.stream(claim.step, claim.message).error or "the step gave up", work)

    def _write_undone(self, claim: Claim, result: Event | Failure, work: Work) -> None:
        if isinstance(result, Failure):
            self._write_failed_compensation(claim, result, work)
        else:
            work.compensated(claim.step, claim.message, result)

    def _write_failed_compensation(self, claim: Claim, failure: Failure, work: Work) -> None:
        compensation = self._compensation_of(claim.step)
        assert compensation is not None  # noqa: S101 -- it has just been run
        self._execution.fail_compensation(compensation, claim.message, failure, work)

    async def _call(
        self,
        claim: Claim,
        handler: Step | Compensation,
        expected: StepState,
        write: Callable[[Claim, Event | Failure, Work], GiveUp | None],
        *,
        event: Event | None = None,
        deadline: datetime | None = None,
    ) -> GiveUp | None:
        """Make the outside call, then have its outcome committed, with what the step wrote."""
        async with self._execution.database.session() as session:
            attempt = self._execution.open_attempt(handler, claim.message)
            if claim.failed:
                result: Event | Failure = Failure(claim.failed)
                attempt.result = result
            else:
                call = self._execution.call(attempt, session, event=event, original=claim.original, flush=False)
                result = await self._bounded(call, session, deadline)
                attempt.end(result)
            if isinstance(result, Failure) and session.in_transaction():
                blame(result, claim.step)
            outcome = Outcome(claim, expected, lambda work: write(claim, result, work), attempt=attempt)
            try:
                if isinstance(result, Failure | Refusal):
                    await session.rollback()
                    return await self._outcomes.settle(outcome)
                return await contain(handler.name, self._settle_with_rows(outcome, session))
            except Exception as error:
                # What can't be committed, for a key of its own say, is a failed attempt of its step.
                if isinstance(result, Failure) or isinstance(error, PositionTakenError) or _is_of_nobody(error):
                    raise
                failure = attempt.result = Failure(error)
                await session.rollback()
        failed = Outcome(claim, expected, lambda work: write(claim, failure, work), attempt=attempt)
        return await self._outcomes.settle(failed)

    async def _settle_with_rows(self, outcome: Outcome, session: StepSession) -> GiveUp | None:
        """Commit an outcome with what its step wrote: alone, if it has begun a transaction of its own to do so."""
        if session.has_connection:
            (spent,) = await commit([outcome], session, self._execution)
            return spent
        outcome.rows = list(session.new)
        session.expunge_all()
        return await self._outcomes.settle(outcome)

    async def _bounded(
        self, attempt: Coroutine[Any, Any, Event | Failure], session: StepSession, deadline: datetime | None
    ) -> Event | Failure:
        """Cut the outside call off at its deadline; once the session is in use, the call is over and nothing is cut.

        A task cancelled within a statement on SQLite would leave the write lock with nobody.
        """
        until = min(deadline - self._execution.clock.now(), _LONGEST_CALL) if deadline else _LONGEST_CALL
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
        return next((each for each in self._execution.service.compensations if each.of is step), None)


def _refuse_or_bury(claim: Claim, reason: str, work: Work) -> None:
    if claim.step.is_refusable:
        work.refused_for(claim.step, claim.message, reason)
    else:
        work.dead_letter(claim.step, claim.message, reason)


def _is_of_nobody(error: Exception) -> bool:
    """Whether the database was away or did not take an entry, or another transaction was in the way."""
    return is_outage(error) or is_contention(error) or isinstance(error, UnrecordedError)
