"""The time, as a dependency: no rule of the toolkit reads the system's clock itself.

Clocks decide only when something happens; correctness never depends on two clocks agreeing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of the time, as aware datetimes in UTC."""

    def now(self) -> datetime:
        """Return the current time."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)
