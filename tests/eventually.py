"""Wait for what must come, instead of for a time that may be too short or too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], *, within: float = 20.0, every: float = 0.02, what: str = "it"
) -> T:
    """Return the first true value that `look` returns; fail with the last one after so many seconds.

    Where looking is dear, look less often.
    """
    until = time.monotonic() + within
    while not (seen := await look()):
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come within {within} s; last seen: {seen!r}")
        await asyncio.sleep(every)
    return seen


async def becomes_true(condition: Callable[[], bool], *, what: str) -> None:
    """Return once the condition is true."""

    async def look() -> bool:
        return condition()

    await eventually(look, what=what)
