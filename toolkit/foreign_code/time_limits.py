"""Time limits for code that the toolkit does not own, where other messages wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

#: The most seconds of a step that is not external: meanwhile no other message of its service is processed.
LONGEST_STEP = 60.0
#: Seconds until a block that may not be cancelled yet is checked again.
_RECHECK = 0.05


@asynccontextmanager
async def at_most(seconds: float, *, unless: Callable[[], bool]) -> AsyncIterator[None]:
    """Cancel a block after so many seconds; while `unless` returns true, as soon as it returns false.

    Raises:
        TimeoutError: the block was cancelled.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as bound:
        handle: asyncio.TimerHandle

        def cut() -> None:
            nonlocal handle
            if unless():
                handle = loop.call_later(_RECHECK, cut)
            else:
                bound.reschedule(loop.time())

        handle = loop.call_later(seconds, cut)
        try:
            yield
        finally:
            handle.cancel()
