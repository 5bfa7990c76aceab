"""Availability of the database, measured by a probe on a connection of its own; callers wait until it is back.

An error on a message's own connection doesn't prove an outage: the message may have caused it. So after each failed
transaction a probe does what every transaction of the toolkit does, and rolls back. While it fails, nothing runs.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.clock import Clock
from toolkit.declaration.events import SagaState
from toolkit.foreign_code.containment import contain
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import log_entries, pruning_watermark
from toolkit.persistence.batch_write import BatchWrite, write_batch
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain, describe_fault, is_of_values
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import read_streams
from toolkit.protocol.fence import StepState

#: Pauses between probes during an outage, in seconds: short at first, for a mere restart.
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
#: After so many seconds an outage is long, and unacknowledged messages are returned to the broker: far less than the
#: half hour after which a broker takes them back itself, and counts that as a delivery.
LONG_OUTAGE = 60.0
#: An outage that continues with the same error is logged once in so many seconds.
_QUIET = 60.0
#: How many bytes the probe writes: more than a page, so that it fails on a full disk.
_PROBE_BYTES = 65_536


class _ProbeRollback(Exception):  # noqa: N818 -- no error: it rolls the probe back
    """The probe succeeded; its transaction is rolled back."""


class Availability:
    """Whether one service's database is available, and how to wait for it.

    - `paused`: set during a long outage; `taking` is the opposite.
    """

    def __init__(self, database: Database, *, service: str, clock: Clock) -> None:
        self.is_there = True
        self.paused, self.taking = asyncio.Event(), asyncio.Event()
        self.taking.set()
        self._database = database
        self._service = service
        self._clock = clock
        self._stopping = asyncio.Event()
        self._waiting: asyncio.Task[bool] | None = None
        self._logged: tuple[str, float] = ("", 0.0)

    async def regained(self) -> bool:
        """Wait until the database is available or the service stops; return whether it was away.

        Concurrent callers share the same probe.
        """
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._regain())
            self._waiting.add_done_callback(self._forget)
        return await asyncio.shield(self._waiting)

    async def answers(self) -> bool:
        """Whether one probe of the database succeeds."""
        return await self._trouble() is None

    def stop(self) -> None:
        """Let all waiting callers return after the current probe."""
        self._stopping.set()

    def _forget(self, _: asyncio.Task[bool]) -> None:
        self._waiting = None

    async def _regain(self) -> bool:
        probes, since = 0, time.monotonic()
        while (trouble := await self._trouble()) and not self._stopping.is_set():
            self.is_there = False
            self._log(trouble)
            if time.monotonic() - since >= LONG_OUTAGE:
                self.taking.clear()
                self.paused.set()
            await self._rest(PAUSES[min(probes, len(PAUSES) - 1)])
            probes += 1
        self.is_there = trouble is None
        if self.is_there:
            self.paused.clear()
            self.taking.set()
        return probes > 0

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _trouble(self) -> Exception | None:
        try:
            await contain("a probe of the database", self._probe())
        except _ProbeRollback:
            pass
        except Exception as error:  # noqa: BLE001 -- what stops the probe stops each message, too
            # The database may reject the probe's made-up values and still accept a message's.
            return None if is_of_values(error) else error
        return None

    async def _probe(self) -> None:
        async with self._database.transaction() as session:
            await self._work(await session.connection())
            raise _ProbeRollback

    async def _work(self, connection: AsyncConnection) -> None:
        """Do what any message's transaction may do; few messages write dead letters, and those can wait alone."""
        now, probe = self._clock.now(), f"probe-{new_id()}"
        await read_streams(connection, [probe])
        await pruning_watermark.reached(connection)
        body = os.urandom(_PROBE_BYTES).hex().encode()
        message = WireMessage(body, routing_key=probe, message_id=probe, type=probe, timestamp=now)
        row = OutboxRow(id=probe, message=message, due_at=now)
        await write_batch(connection, BatchWrite(entries=[self._entry(probe)], rows=[row]))
        await write_batch(connection, BatchWrite(sent=[probe]))

    def _entry(self, probe: str) -> Entry:
        return log_entries.move(
            (probe, probe, probe),
            service=self._service,
            position=1,
            from_state=None,
            to=StepState.COMPLETED,
            saga_state=SagaState.PENDING,
            event_id=probe,
            event_type=probe,
            at=self._clock.now(),
        )

    def _log(self, trouble: Exception) -> None:
        """Log the outage at its start, when its error changes, and once in `_QUIET` seconds."""
        text, now = describe_fault(trouble), time.monotonic()
        if self._logged[0] == text and now - self._logged[1] < _QUIET:
            return
        self._logged = text, now
        complain("the database is away; nothing is acknowledged meanwhile", trouble)
