"""An event loop whose time is a `ManualClock`: it runs until no task is ready, and never waits."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from datetime import datetime, timedelta

from toolkit.testing import ManualClock


class ClockOff:
    """A clock that differs from another one by a constant."""

    def __init__(self, clock: ManualClock, *, by: timedelta) -> None:
        self._clock, self._by = clock, by

    def now(self) -> datetime:
        """Return the other clock's time plus the difference."""
        return self._clock.now() + self._by


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs the ready callbacks, then jumps to the next timer; no task may wait for a thread or a socket."""

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

    def select(self, timeout: float | None = None) -> list:
        if timeout is None or timeout > 0:
            self._jump(timeout)
        return super().select(0)
