"""An event loop whose time is a `ManualClock`: it runs until no task is ready, and never waits."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from toolkit.testing.clock import ManualClock

T = TypeVar("T")

#: Network and threads answer at an arbitrary time, and time stands still meanwhile.
_NO_NETWORK = (
    "a simulated world has no network: provide a fake in place of the client, `provides={Client: fake}`; "
    "toolkit.testing.OutsideSystem is the base of one"
)


class ClockOff:
    """A clock that differs from another one by `by`, which a test may change."""

    def __init__(self, clock: ManualClock, *, by: timedelta) -> None:
        self._clock, self.by = clock, by

    def now(self) -> datetime:
        """Return the other clock's time plus the difference."""
        return self._clock.now() + self.by


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs the ready callbacks, then jumps to the next timer; a function for a thread is called at once."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._start = self._end = clock.now()
        super().__init__(_Jumping(self._jump))

    def time(self) -> float:
        """Return the clock's time in seconds."""
        return (self._clock.now() - self._start).total_seconds()

    def settle(self) -> None:
        """Run until everything waits: for a later time, or for the test."""
        self.advance(timedelta(0))

    def advance(self, by: timedelta) -> None:
        """Let this time pass; each timer in it fires at its own time."""
        self._end = self._clock.now() + by
        self.run_forever()

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine until it returns, without letting time pass.

        Raises:
            RuntimeError: it waits for a later time.
        """
        task = self.create_task(coroutine)
        self.settle()
        if not task.done():
            task.cancel()
            self.settle()
            raise RuntimeError("the coroutine waits for a later time, which does not come by itself: skip the time")
        return task.result()

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]  # typeshed spells its types by TypeVarTuple
        """Call the function now, in this thread."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- as an executor does: the awaiter receives it
            future.set_exception(error)
        return future

    async def create_connection(self, *_: Any, **__: Any) -> Any:
        """Refuse the connection."""
        raise ConnectionRefusedError(_NO_NETWORK)

    create_unix_connection = create_connection
    sock_connect = create_connection

    def _jump(self, seconds: float | None) -> None:
        """Advance to the next timer, or stop if there is none before the end."""
        # Rounded up: a clock of whole microseconds that stops short of the timer would never reach it.
        upcoming = self._end if seconds is None else self._after(seconds)
        if upcoming >= self._end:
            upcoming = self._end
            self.stop()
        self._clock.advance(upcoming - self._clock.now())

    def _after(self, seconds: float) -> datetime:
        return self._clock.now() + timedelta(microseconds=math.ceil(seconds * 1_000_000))


class _Jumping(selectors.DefaultSelector):
    """Calls `jump` where another selector waits."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        if timeout is None or timeout > 0:
            self._jump(timeout)
        return super().select(0)
