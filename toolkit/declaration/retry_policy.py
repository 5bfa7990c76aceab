"""Whether and when a failed attempt is repeated: pure functions of the policy and the time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit.errors import describe


class Retry(Exception):  # noqa: N818 -- reads as the request it is: `raise Retry(after=...)`
    """Raised by a step to be run again, regardless of its policy's `retry_on`."""

    def __init__(self, reason: str = "the step asked for a retry", *, after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    - `attempts`: the most times that a step is run, the first included.
    - `first_delay`, `factor`, `ceiling`: the delay before attempt n is `first_delay * factor ** (n - 2)`,
      never more than `ceiling`.
    - `jitter`: the share of the delay, 0 to 1, by which it varies at random in either direction.
    - `retry_on`: the exceptions that are followed by another attempt; others are final at once.
    """

    attempts: int = 5
    first_delay: timedelta = timedelta(milliseconds=200)
    factor: float = 2.0
    ceiling: timedelta = timedelta(seconds=30)
    jitter: float = 0.2
    retry_on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 1 <= self.factor <= 100 or not 0 <= self.jitter <= 1:
            raise ValueError(
                f"RetryPolicy(attempts={self.attempts}, factor={self.factor}, jitter={self.jitter}): "
                "attempts are at least 1, factor lies between 1 and 100, jitter between 0 and 1"
            )

    def delay_after(self, attempt: int) -> timedelta:
        """Return the delay after the failed attempt with this number, counted from 1."""
        # In seconds and with a bounded exponent, so that a thousand attempts overflow neither timedelta nor float.
        grown = self.first_delay.total_seconds() * self.factor ** min(attempt - 1, 64)
        plain = timedelta(seconds=min(grown, self.ceiling.total_seconds()))
        return plain * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 -- spreads load, no secret


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The attempt failed, and another follows at `due_at`."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The attempt failed, and no other follows; `reason` explains why."""

    reason: str


def after_failure(
    error: Exception, *, policy: RetryPolicy, attempt: int, now: datetime, deadline: datetime | None
) -> TryAgain | GiveUp:
    """Decide whether another attempt follows a failed one; none follows at or past the deadline."""
    asked = isinstance(error, Retry)
    if not asked and not isinstance(error, policy.retry_on):
        return GiveUp(f"not worth a retry: {describe(error)}")
    if attempt >= policy.attempts:
        attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return GiveUp(f"retries spent after {attempts}: {describe(error)}")
    delay = error.after if isinstance(error, Retry) and error.after is not None else policy.delay_after(attempt)
    due_at = now + delay
    if deadline is not None and due_at >= deadline:
        return GiveUp(f"the next attempt would come after the deadline: {describe(error)}")
    return TryAgain(due_at)
