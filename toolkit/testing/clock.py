"""A clock that the test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

#: The default start of a clock: an arbitrary time that is the same in every run.
NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


class ManualClock:
    """A `Clock` that only the test moves.

    clock = ManualClock()
    clock.advance(timedelta(minutes=5))
    """

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the time that the test has set."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock; a negative duration moves it back, as a correction of the system's clock does."""
        self._now += by
