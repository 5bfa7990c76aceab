"""What calls to the outside came to: committed, with what follows, in batches as they come.

What ends while a transaction is under way forms the next one, just as deliveries do in the inbox. Where a batch can't
be committed each outcome is committed by itself, so that none holds up the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import inspect

from toolkit import failpoints
from toolkit.declaration.retry_policy import GiveUp
from toolkit.errors import PositionTakenError
from toolkit.foreign_code.containment import contain
from toolkit.persistence.database_errors import is_outage, recording
from toolkit.persistence.saga_log_streams import read_streams
from toolkit.persistence.step_session import StepSession
from toolkit.protocol.fence import StepState
from toolkit.runtime.after_commit import Attempt
from toolkit.runtime.executor import Executor
from toolkit.runtime.unit_of_work import ExternalCall, UnitOfWork, events_of


@dataclass(slots=True, eq=False)
class ExternalResult:
    """What one call came to: its step has to stand at `expected`, `write` tells what follows, `rows` are its own.

    `attempt` is the call itself, if one was made.
    """

    call: ExternalCall
    expected: StepState
    write: Callable[[UnitOfWork], GiveUp | None]
    rows: Sequence[object] = ()
    attempt: Attempt | None = None
    settled: asyncio.Future[GiveUp | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ExternalResults:
    """Commits the outcomes of one service."""

    def __init__(self, executor: Executor, *, batch_size: int) -> None:
        self._executor = executor
        self._batch_size = batch_size
        self._waiting: deque[ExternalResult] = deque()
        self._committing: asyncio.Task[None] | None = None

    async def settle(self, outcome: ExternalResult) -> GiveUp | None:
        """Return once the outcome is committed.

        Raises:
            PositionTakenError: somebody else wrote the step's outcome first; whoever gets this stops at once.
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
            spent = await contain("the outcomes of outside calls", self._commit_in_one(batch))
        except Exception as error:  # noqa: BLE001 -- handed to whoever waits for it
            for row, name in blank:  # the next transaction gives them keys of its own
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
            except BaseException:  # a cancellation, too, must not leave rows that are taken for written
                # A session that is only closed leaves what it has flushed for rows of its database: no other would
                # ever insert them. Rolled back, they are new again.
                await session.rollback()
                raise


async def commit(batch: Sequence[ExternalResult], session: StepSession, executor: Executor) -> list[GiveUp | None]:
    """Write outcomes upon what their session holds already, and commit; return which step has spent its retries.

    Raises:
        PositionTakenError: somebody else wrote the outcome of one of the steps first; nothing was written.
    """
    spent = []
    with executor.relay.deletion() as delete:
        connection = await session.connection()
        saga_ids = [outcome.call.message.envelope.saga_id for outcome in batch]
        with recording():
            work = executor.begin(await read_streams(connection, saga_ids))
        for outcome in batch:
            call = outcome.call
            if work.stream(call.step, call.message).state is not outcome.expected:
                raise PositionTakenError(f"the outcome of {call.step.name} is written already")
            session.add_all(outcome.rows)
            if outcome.attempt:
                work.attempted(outcome.attempt)
            spent.append(outcome.write(work))
        await session.flush()
        failpoints.here("step-written", events_of(outcome.call.message for outcome in batch))
        with recording():
            await work.write(connection)
            await delete(connection)
        session.outcomes = work.outcomes()
        await session.commit()
    executor.finish(work)
    return spent


def _keys_to_come(row: object) -> list[tuple[object, str]]:
    """Return which parts of a new row's key the database will choose."""
    mapper = inspect(row).mapper
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return [(row, name) for name in names if getattr(row, name, None) is None]


def _answer(outcome: ExternalResult, answer: GiveUp | Exception | None) -> None:
    if outcome.settled.done():  # whoever waited was told to stop
        return
    if isinstance(answer, Exception):
        outcome.settled.set_exception(answer)
    else:
        outcome.settled.set_result(answer)
