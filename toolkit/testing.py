"""Helpers for tests of your own sagas: the check of every interleaving, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from toolkit.checker.check import check
from toolkit.declaration.service import Service

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


def assert_sound(services: Iterable[Service]) -> None:
    """Check all sagas of these services as `saga check` does: by static rules, and in every interleaving.

    Raises:
        AssertionError: the text names each finding, its story and its cure; or a saga that has too many states.
    """
    reports = list(check(services))
    lines = [str(finding) for report in reports for finding in report.findings]
    lines += [f"{each.saga} has too many states to be explored" for each in reports if not each.exploration.is_complete]
    if lines:
        raise AssertionError("\n".join(lines))
