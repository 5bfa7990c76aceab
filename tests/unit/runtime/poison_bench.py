"""The poison isolation of one process, on a real database; the test decides how messages are executed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import suspect_messages
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.suspect_messages import fingerprint
from toolkit.runtime.delivery import Delivery
from toolkit.runtime.poison_isolation import PoisonIsolation
from toolkit.runtime.quarantine import Quarantine

LETHAL = WireMessage(b'{"n": 1}', "order.Placed", "one", "order-1")
INNOCENT = WireMessage(b'{"n": 2}', "order.Placed", "two", "order-2")


class Nowhere:
    """A source that does nothing with its deliveries."""

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Settle them."""

    def fail(self, delivery: Delivery, error: Exception) -> None:
        """Take one back."""


class Bench:
    """The poison isolation of one process, with its dead letters and the messages that it executed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.dead_letters: list[DeadLetter] = []
        self.executed: list[WireMessage] = []
        self.execute: Callable[[WireMessage], Awaitable[None]] = self._execute
        self.restart()

    def restart(self) -> None:
        """Continue as a restarted process."""
        self.poison_isolation = PoisonIsolation(
            "shop", self.database, deliver=self._take, dead_letter=self._dead_letter, quarantine=Quarantine()
        )

    async def dies_under(self, message: WireMessage) -> None:
        """Take a message, and end before it is settled, as a killed process does."""
        begun = asyncio.Event()

        async def hang(_: WireMessage) -> None:
            begun.set()
            await asyncio.Event().wait()

        self.execute = hang
        task = asyncio.create_task(self.poison_isolation.isolate(message))
        waits = {task, asyncio.create_task(begun.wait())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        self.execute = self._execute
        self.restart()

    async def marks(self, message: WireMessage) -> int:
        """Return the number of marks of a message."""
        async with self.database.reading() as connection:
            suspect = fingerprint(message)
            return (await suspect_messages.marks(connection, [suspect])).get(suspect, 0)

    async def _take(self, message: WireMessage) -> None:
        await self.execute(message)

    async def _execute(self, message: WireMessage) -> None:
        self.executed.append(message)

    async def _dead_letter(self, dead_letter: DeadLetter) -> None:
        self.dead_letters.append(dead_letter)
