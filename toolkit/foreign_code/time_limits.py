"""Time limits for code that the toolkit does not own, where other messages wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: The most seconds of a step that is not external: meanwhile no other message of its service is processed.
LONGEST_STEP = 60.0
#: Seconds until a block that may not be cancelled yet is checked again.
_RECHECK = 0.05


async def at_most(seconds: float, call: Coroutine[Any, Any, T], *, unless: Callable[[], bool]) -> T:
    """Await a coroutine, and cancel it after so many seconds; while `unless` returns true, as soon as it returns false.

    One that never waits needs no timer, and gets none.

    Raises:
        TimeoutError: the coroutine was cancelled.
    """
    try:
        awaited = call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
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
            return await _Resumed(call, awaited)
        finally:
            handle.cancel()


class _Resumed(Generic[T]):
    """Awaits a coroutine that has begun to wait for something."""

    __slots__ = ("_awaited", "_call")

    def __init__(self, call: Coroutine[Any, Any, T], awaited: Any) -> None:
        self._call = call
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        """Pass on what the coroutine waits for, and what that results in."""
        awaited = self._awaited
        try:
            while True:
                try:
                    answer = yield awaited
                except BaseException as error:  # noqa: BLE001 -- a cancellation too belongs to the coroutine
                    awaited = self._call.throw(error)
                else:
                    awaited = self._call.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
