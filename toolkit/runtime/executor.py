"""The one transaction: messages in; fence, the steps' own rows, saga log and outbox committed together.

A batch is executed optimistically first: no step has a savepoint, what the steps wrote is flushed together, and the log
is read only for messages that need more than an empty stream. Where a stream turns out not to be empty, the batch is
rolled back and executed again with all streams read. Where a step fails, or refuses after it wrote, the batch falls
back: all of it is rolled back and executed again, each step in a savepoint of its own. A batch of one is the simplest
case: the result of its step is known by then, and only written.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.errors import PositionTakenError
from toolkit.foreign_code.containment import contained
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message
from toolkit.observability.metrics import Meter
from toolkit.observability.tracing import Tracing
from toolkit.persistence.availability import Availability
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import recording
from toolkit.persistence.saga_log_streams import Stream
from toolkit.protocol.keys import StreamKey
from toolkit.runtime.coordination import Coordination
from toolkit.runtime.dispatch import Dispatch
from toolkit.runtime.failed_attempts import FailedAttempts
from toolkit.runtime.invocation import Invocation
from toolkit.runtime.log_reads import LogReads
from toolkit.runtime.relay import Relay
from toolkit.runtime.step_runner import FallbackError, Known, StepRunner, Transaction, writing
from toolkit.runtime.unit_of_work import ExternalCall, Origin, UnitOfWork, events_of, saga_ids_of, sagas_of


class Executor:
    """Executes the messages of one service."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        *,
        queue: str,
        database: Database,
        invocation: Invocation,
        relay: Relay,
        clock: Clock,
        tracing: Tracing | None = None,
        former_steps: Collection[tuple[str, str]] = (),
    ) -> None:
        """Prepare; `former_steps` stand in the log by saga type and name, though this release does not declare them."""
        timeouts, max_body = settings.step_timeouts, settings.max_message_bytes
        self.service = service
        self.database = database
        self.relay = relay
        self.clock = clock
        self.steps = StepRunner(invocation, queue=queue, max_body=max_body, tracing=tracing)
        self.failures = FailedAttempts(clock, timeouts)
        self._dispatch = Dispatch(
            service,
            self.steps,
            self.failures,
            clock=clock,
            former_steps=former_steps,
            asked_by=settings.asked_by,
            reminders=settings.step_reminders,
            coordination=Coordination.of(service, timeouts=timeouts, max_body=max_body),
        )
        self._queue = queue
        self.has_joins = service.has_joins
        self._log_reads = LogReads(service, former_steps=former_steps, clock=clock, reads_first=settings.reads_first)
        self._tracing = tracing
        self._meter = Meter(service)
        self.availability = Availability(database, service=service.name, clock=clock)
        #: How many transactions have written to the saga log.
        self.recorded = 0
        self._final_steps = service.final_steps

    async def execute(
        self, batch: Sequence[Message | Unreadable], *, commit_error: Exception | None = None
    ) -> list[list[ExternalCall]]:
        """Commit the batch, hand its outbox rows to the relay, and return the external calls that follow, by message.

        With `commit_error`, no step is run: each fails with this error, which the commit raised before.

        Raises:
            ContentionError: another replica was in the way; execute the batch again.
            UnrecordedError: a statement of the toolkit's own failed.
        """
        if commit_error is not None:
            return await self._execute(batch, lambda handler, message: self.steps.fail(handler, message, commit_error))
        try:
            return await self._execute_optimistically(batch)
        except FallbackError as fallback:
            return await self._execute(batch, fallback.known)

    async def _execute_optimistically(self, batch: Sequence[Message | Unreadable]) -> list[list[ExternalCall]]:
        """Execute without savepoints, and first without reading the log for messages that seem to need none."""
        read = [item for item in batch if self._log_reads.are_needed_for(item)]
        if len(read) < len(batch):
            with suppress(PositionTakenError):  # a stream is not empty: a duplicate came, or another replica was faster
                return await self._execute(batch, is_optimistic=True, read=read)
        return await self._execute(batch, is_optimistic=True)

    async def _execute(
        self,
        batch: Sequence[Message | Unreadable],
        known: Known = lambda *_: None,
        *,
        is_optimistic: bool = False,
        read: Sequence[Message | Unreadable] | None = None,
    ) -> list[list[ExternalCall]]:
        """Commit the batch; the log is read for all its messages, or only for those in `read`."""
        with self.relay.deletion() as claim_confirmed:
            async with self.database.batch() as transaction:
                with recording():
                    saga_ids = saga_ids_of(batch if read is None else read)
                    work = self.begin(await transaction.read_streams(saga_ids, has_joins=self.has_joins))
                failpoints.here("fenced", events_of(batch))
                tx = Transaction(transaction, work, known, is_optimistic, is_alone=len(batch) == 1)
                calls = [await self._dispatch.dispatch(item, tx) for item in batch]
                transaction.outcomes = work.outcomes()
                with writing(tx):
                    unread = sagas_of(batch) - sagas_of(read) if read is not None else ()
                    await work.write(transaction.write, sent=claim_confirmed(), unread=unread)
        self.finish(work)
        self._meter.batch(len(batch))
        return calls

    def begin(self, streams: dict[StreamKey, Stream]) -> UnitOfWork:
        """Return an empty unit of work upon these streams."""
        due = self.relay.due_if_handed_over()
        origin = Origin(
            service=self.service.name,
            queue=self._queue,
            now=self.clock.now(),
            outgoing_due=due,
            final_steps=self._final_steps,
        )
        return UnitOfWork(origin, streams, tracing=self._tracing)

    def finish(self, work: UnitOfWork) -> None:
        """Send what was committed, and report it."""
        self.recorded += bool(work.entries)
        failpoints.here("committed", work.outcomes())
        self.relay.hand_over(work.outgoing.events, work.outgoing.delayed)
        self._dispatch.controls.committed(work.ends.answered)
        try:
            with contained("the report of a commit"):
                work.report(self._meter)
        except Exception:  # it is committed: to execute it again would not help
            # Past structlog, since a processor of the service's may be what fails.
            logging.getLogger("toolkit").exception("what was committed could not be reported")

    async def dead_letter(self, item: Message | Unreadable, error: BaseException) -> None:
        """Keep a message as a dead letter whose outcome the saga log does not take."""
        work = self.begin({})
        work.kept.unrecordable(item, error)
        async with self.database.batch() as transaction:
            await work.write(transaction.write)
        self.finish(work)
