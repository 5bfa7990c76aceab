"""Reading other clocks: an answer comes between our question and our receipt of it, and no more is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from toolkit.doctor.facts import ClockFacts

#: A Date header has whole seconds, and servers make it anew once a second.
_DATE_LAG = timedelta(seconds=2)


def reading(
    whose: str, at: datetime, *, asked: datetime, answered: datetime, lag: timedelta = timedelta(0)
) -> ClockFacts:
    """Return what a clock's answer tells; what it told may be old by that lag."""
    return ClockFacts(whose, least=at - answered, most=at + lag - asked)


def date_of(whose: str, response: httpx.Response, asked: datetime) -> ClockFacts | None:
    """Return what the answer's Date header tells of its server's clock."""
    answered = datetime.now(UTC)
    try:
        at = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return None
    return reading(whose, at, asked=asked, answered=answered, lag=_DATE_LAG)


def stated(whose: str, text: object, *, asked: datetime) -> ClockFacts | None:
    """Return what a time in an answer tells."""
    answered = datetime.now(UTC)
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return reading(whose, at, asked=asked, answered=answered) if at.tzinfo else None
