"""Results of external calls: committed, with the entries and messages that follow, in batches as they come.

The calls that end while a transaction runs form the next one, as deliveries do in the batcher. Where a batch can't be
committed, each result is committed by itself, so that none holds up the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import inspect

from toolkit import failpoints
from toolkit.declaration.retry_policy import GiveUp
from toolkit.errors import PositionTakenError
from toolkit.foreign_code.containment import contain
from toolkit.persistence.batch_write import write_batch
from toolkit.persistence.database_errors import is_outage, recording
from toolkit.persistence.saga_log_streams import read_streams
from toolkit.persistence.step_session import StepSession
from toolkit.protocol.fence import StepState
from toolkit.runtime.after_commit import Attempt
from toolkit.runtime.executor import Executor
from toolkit.runtime.join_transitions import JoinTransition
from toolkit.runtime.transitions import Transition
from toolkit.runtime.unit_of_work import ExternalCall, UnitOfWork, events_of


@dataclass(slots=True, eq=False)
class ExternalResult:
    """The result of one call.

    - `expected`: the state that the step must have.
    - `write`: writes the transition that follows.
    - `rows`: the step's own new rows.
    - `attempt`: the call itself, if one was made.
    """

    call: ExternalCall
    expected: StepState
    write: Callable[[Transition], GiveUp | None]
    rows: Sequence[object] = ()
    attempt: Attempt | None = None
    settled: asyncio.Future[GiveUp | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ExternalResults:
    """Commits the results of one service."""

    def __init__(self, executor: Executor, *, batch_size: int) -> None:
        self._executor = executor
        self._batch_size = batch_size
        self._waiting: deque[ExternalResult] = deque()
        self._committing: asyncio.Task[None] | None = None

    async def settle(self, outcome: ExternalResult) -> GiveUp | None:
        """Return once the result is committed.

        Raises:
            PositionTakenError: another replica wrote the step's outcome first; the caller stops at once.
        """
        self._waiting.append(outcome)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await outcome.settled

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                await self._commit([self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))])
        finally:
            self._committing = None

    async def _commit(self, batch: Sequence[ExternalResult]) -> None:
        blank = [key for outcome in batch for row in outcome.rows for key in _keys_to_come(row)]
        try:
            spent = await contain("the results of external calls", self._commit_in_one(batch))
        except Exception as error:  # noqa: BLE001 -- raised by `settle`
            for row, name in blank:  # the next transaction gives them new keys
                setattr(row, name, None)
            if len(batch) > 1 and (not is_outage(error) or await self._executor.availability.answers()):
                for outcome in batch:
                    await self._commit([outcome])
            else:
                for outcome in batch:
                    _answer(outcome, error)
        else:
            for outcome, one in zip(batch, spent, strict=True):
                _answer(outcome, one)

    async def _commit_in_one(self, batch: Sequence[ExternalResult]) -> list[GiveUp | None]:
        async with self._executor.database.session() as session:
            try:
                return await commit(batch, session, self._executor)
            except BaseException:  # a cancellation, too, must not leave objects marked as written
                # A session that is only closed leaves flushed objects marked as rows of its database, and no other
                # session would insert them. Rolled back, they are new again.
                await session.rollback()
                raise


async def commit(batch: Sequence[ExternalResult], session: StepSession, executor: Executor) -> list[GiveUp | None]:
    """Write results beside what their session holds already, and commit; return why steps have spent their retries.

    Raises:
        PositionTakenError: another replica wrote the outcome of one of the steps first; nothing was written.
    """
    spent = []
    with executor.relay.deletion() as claim_confirmed:
        connection = await session.connection()
        saga_ids = [outcome.call.message.envelope.saga_id for outcome in batch]
        with recording():
            work = executor.begin(await read_streams(connection, saga_ids, has_joins=executor.has_joins))
        for outcome in batch:
            transition = _transition_of(work, outcome.call)
            if transition.stream.state is not outcome.expected:
                raise PositionTakenError(f"the outcome of {transition.step.name} is written already")
            session.add_all(outcome.rows)
            if outcome.attempt:
                transition.attempted(outcome.attempt)
            spent.append(outcome.write(transition))
        await session.flush()
        failpoints.here("step-written", events_of(outcome.call.message for outcome in batch))
        with recording():
            await work.write(partial(write_batch, connection), sent=claim_confirmed())
        session.outcomes = work.outcomes()
        await session.commit()
    executor.finish(work)
    return spent


def _transition_of(work: UnitOfWork, call: ExternalCall) -> Transition:
    """Return the transition of the step whose call has a result."""
    if call.joined:
        return JoinTransition(work, call.step, call.message, joined=call.joined)
    return Transition(work, call.step, call.message)


def _keys_to_come(row: object) -> list[tuple[object, str]]:
    """Return the parts of a new row's key that the database will generate."""
    mapper = inspect(row).mapper
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return [(row, name) for name in names if getattr(row, name, None) is None]


def _answer(outcome: ExternalResult, answer: GiveUp | Exception | None) -> None:
    if outcome.settled.done():  # the waiting call was cancelled
        return
    if isinstance(answer, Exception):
        outcome.settled.set_exception(answer)
    else:
        outcome.settled.set_result(answer)
