"""For tests of your own sagas: a clock that stands still until it is told to go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

#: Where a clock begins that is given no time: any day does, so long as it is the same in every run.
NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


class ManualClock:
    """A `Clock` that only the test moves.

    clock = ManualClock()
    clock.advance(timedelta(minutes=5))
    """

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the moment that the test has come to."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Go on; backwards too, as a clock does that is set right."""
        self._now += by
