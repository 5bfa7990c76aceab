"""Whether the database is away: asked by a connection of its own, one probe at a time, and waited for.

What a message does to its own connection says nothing of the database. So each error of a transaction is followed by
a probe, which does what every transaction of the toolkit does, and takes it back. While it fails, nothing is executed.
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
from toolkit.persistence import log_entries, outbox, pruning_watermark, saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain, describe_fault, is_of_values
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import read_streams
from toolkit.protocol.fence import StepState

#: The pauses between the probes of a database that is away, in seconds: short at first, for a mere restart.
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
#: After so many seconds an outage is a long one, and what is in hand is given back to the broker: far less than the
#: half hour after which a broker takes back what is held, and counts that as a delivery.
LONG_OUTAGE = 60.0
#: How long nothing is logged of an outage that goes on with the same error, in seconds.
_QUIET = 60.0
#: So many bytes the probe writes: more than a page, so that a full disk can't take it.
_PROBE_BYTES = 65_536


class _TakenBackError(Exception):
    """The probe did all that it was to do, and nothing of it is to stay."""


class Availability:
    """Knows whether one service's database is there, and waits for it.

    - `paused`: set while an outage is a long one; `taking` is the contrary.
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
        self._said: tuple[str, float] = ("", 0.0)

    async def regained(self) -> bool:
        """Return once the database does what the toolkit needs, or the service stops: whether it was away until then.

        Those who wait at the same time wait for the same probe.
        """
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._regain())
            self._waiting.add_done_callback(self._forget)
        return await asyncio.shield(self._waiting)

    async def answers(self) -> bool:
        """Whether the database does what the toolkit needs, by one probe."""
        return await self._trouble() is None

    def stop(self) -> None:
        """Have all who wait return after the probe that is under way."""
        self._stopping.set()

    def _forget(self, _: asyncio.Task[bool]) -> None:
        self._waiting = None

    async def _regain(self) -> bool:
        probes, since = 0, time.monotonic()
        while (trouble := await self._trouble()) and not self._stopping.is_set():
            self.is_there = False
            self._say(trouble)
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
        except _TakenBackError:
            pass
        except Exception as error:  # noqa: BLE001 -- whatever keeps the probe from its work keeps each message from its own
            # What is said of the probe's made-up values says nothing of a message's.
            return None if is_of_values(error) else error
        return None

    async def _probe(self) -> None:
        async with self._database.transaction() as session:
            await self._work(await session.connection())
            raise _TakenBackError

    async def _work(self, connection: AsyncConnection) -> None:
        """Do what the transaction of any message may do; dead letters are for a few only, which can wait alone."""
        now, probe = self._clock.now(), f"probe-{new_id()}"
        await read_streams(connection, [probe])
        await pruning_watermark.reached(connection)
        await saga_log.append(connection, [self._entry(probe)])
        message = WireMessage(os.urandom(_PROBE_BYTES), routing_key=probe, message_id=probe, type=probe, timestamp=now)
        await outbox.add(connection, [OutboxRow(id=probe, message=message, due_at=now)])
        await outbox.delete_sent(connection, [probe])

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

    def _say(self, trouble: Exception) -> None:
        """Log what is wrong: at first, when it changes, and now and then."""
        text, now = describe_fault(trouble), time.monotonic()
        if self._said[0] == text and now - self._said[1] < _QUIET:
            return
        self._said = text, now
        complain("the database is away; nothing is acknowledged meanwhile", trouble)
