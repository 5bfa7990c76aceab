"""Outbox rows that have come due: delayed ones, and those of processes that died.

Rows of this process are handed over to the relay at their commit, so a poll seldom finds one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.foreign_code.containment import contain
from toolkit.persistence import outbox
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain
from toolkit.persistence.outbox import OutboxRow


class DueRows:
    """Claims the due rows of one service's outbox; several replicas share the work by leases.

    - `room`: returns how many rows may be claimed now.
    - `start`: takes the claimed rows.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        lease: timedelta,
        poll: timedelta,
        room: Callable[[], int],
        start: Callable[[Sequence[OutboxRow]], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease = lease
        self._poll = poll
        self._room = room
        self._start = start
        self._expected: list[datetime] = []
        self._wake = asyncio.Event()
        self._is_stopping = False
        #: Whether the last transaction succeeded.
        self.is_healthy = True
        #: How many claims have begun, and whether one is under way: its rows look like rows that are not due yet.
        self.claims = 0
        self.is_claiming = False

    def expect(self, due: Iterable[datetime]) -> None:
        """Look for due rows now, and at these times."""
        self._expected += due
        self._wake.set()

    async def run(self) -> None:
        """Claim due rows until `stop`."""
        while not self._is_stopping:
            full = await self.claim()
            if not full and not self._is_stopping:
                await self._sleep()

    def stop(self) -> None:
        """Let `run` return between two transactions."""
        self._is_stopping = True
        self._wake.set()

    async def claim(self) -> bool:
        """Claim due rows and start sending them; return whether more may be due."""
        self._wake.clear()
        now = self._clock.now()
        self._expected = [moment for moment in self._expected if moment > now]
        room = self._room()
        if room <= 0:
            return False  # due rows are claimed as soon as there is room: then the relay wakes this
        self.claims += 1
        self.is_claiming = True
        try:
            return await self._claim_and_start(now, room)
        finally:
            self.is_claiming = False

    async def _claim_and_start(self, now: datetime, room: int) -> bool:
        try:
            rows = await contain("claiming", self._claim(now, room))
        except Exception as error:  # noqa: BLE001 -- the relay outlives every outage of its database
            self.back_off(error)
            return False
        self.is_healthy = True
        failpoints.here("relay-claimed", (row.message.type for row in rows))
        self._start(rows)
        return len(rows) == room

    def back_off(self, error: Exception) -> None:
        """Report a failed transaction of the relay; the next claim that succeeds ends the outage."""
        self.is_healthy = False
        complain("relay can't reach its database", error)

    async def _claim(self, now: datetime, most: int) -> list[OutboxRow]:
        async with self._database.transaction() as session:
            return await outbox.claim(await session.connection(), now=now, until=now + self._lease, most=most)

    async def _sleep(self) -> None:
        """Wait until woken, until the next delayed row is due, or for the poll interval."""
        until_next = min(self._expected, default=None)
        wait = min(self._poll, until_next - self._clock.now()) if until_next else self._poll
        try:
            async with asyncio.timeout(max(wait.total_seconds(), 0.001)):
                await self._wake.wait()
        except TimeoutError:
            return
