"""How long code that the toolkit does not own may take, where others wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

#: So many seconds a step may take that is not external: no other message of its service moves meanwhile.
LONGEST_STEP = 60.0
#: How long until it is asked again whether a block may be cut off, in seconds.
_MOMENT = 0.05


@asynccontextmanager
async def at_most(seconds: float, *, unless: Callable[[], bool]) -> AsyncIterator[None]:
    """Cut a block off after so many seconds; while `unless` holds, as soon as it does not.

    Raises:
        TimeoutError: the block was cut off.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as bound:
        handle: asyncio.TimerHandle

        def cut() -> None:
            nonlocal handle
            if unless():
                handle = loop.call_later(_MOMENT, cut)
            else:
                bound.reschedule(loop.time())

        handle = loop.call_later(seconds, cut)
        try:
            yield
        finally:
            handle.cancel()
