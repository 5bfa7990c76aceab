"""Read other clocks: an answer's time lies between the request and its receipt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from toolkit.doctor.facts import ClockFacts

#: A Date header has whole seconds, and servers renew it once a second.
_DATE_LAG = timedelta(seconds=2)


def reading(
    whose: str, at: datetime, *, asked: datetime, answered: datetime, lag: timedelta = timedelta(0)
) -> ClockFacts:
    """Return the bounds of a clock that answered `at`, a time that may be `lag` old."""
    return ClockFacts(whose, least=at - answered, most=at + lag - asked)


def date_of(whose: str, response: httpx.Response, asked: datetime) -> ClockFacts | None:
    """Return the clock of the response's Date header."""
    answered = datetime.now(UTC)
    try:
        at = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return None
    return reading(whose, at, asked=asked, answered=answered, lag=_DATE_LAG)


def stated(whose: str, text: object, *, asked: datetime) -> ClockFacts | None:
    """Return the clock of a time in an answer."""
    answered = datetime.now(UTC)
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return reading(whose, at, asked=asked, answered=answered) if at.tzinfo else None
