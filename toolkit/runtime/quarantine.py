"""Decides which messages may run together that were in hand when a process ended: a few, or one alone.

Most of them ended no process: a killed one had hundreds in hand. One that was in hand twice is examined alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

#: So many messages with one mark run together; at the next death at most so many have two.
FEW = 20


class Quarantine:
    """Lets a few messages in at once, or one alone; services that share a process share it."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(FEW)
        #: Held while a message waits for its places, so that those behind it can't take them all the time.
        self._door = asyncio.Lock()

    @asynccontextmanager
    async def entered(self, *, marks: int) -> AsyncIterator[None]:
        """Run the block with a few others that have one mark; with more marks, while no other message is inside."""
        async with AsyncExitStack() as stack:
            async with self._door:
                for _ in range(FEW if marks > 1 else 1):
                    await stack.enter_async_context(self._places)
            yield
