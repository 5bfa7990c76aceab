"""Submitted forms, each executed once: the page names the submission beforehand, and a second click finds the first.

Submissions are kept in this process only, and not for long; the services' audit has them all.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

#: How many submissions are kept: more than people click in a day.
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Line:
    """The outcome at one service (`done`, `sent`, `refused`, `unreachable`, `nothing`), and its text."""

    service: str
    outcome: str
    text: str


@dataclass(slots=True)
class Submission:
    """A submitted form that is under way or done."""

    heading: str
    task: asyncio.Task[list[Line]]

    @property
    def lines(self) -> list[Line]:
        """The outcomes, once all are known."""
        return self.task.result() if self.task.done() else []


class Submissions:
    """All submissions, by the names that the pages gave them."""

    def __init__(self) -> None:
        self._known: dict[str, Submission] = {}

    @staticmethod
    def new_name() -> str:
        """Return a name for the submission of a form."""
        return secrets.token_urlsafe(12)

    def get(self, name: str) -> Submission | None:
        """Return the submission of that name."""
        return self._known.get(name)

    async def once(self, name: str, heading: str, action: Callable[[], Awaitable[list[Line]]]) -> Submission:
        """Run the action, unless one ran under that name; it goes on when the browser disconnects."""
        if name not in self._known:
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[name] = Submission(heading, asyncio.ensure_future(action()))
        submission = self._known[name]
        await asyncio.shield(submission.task)
        return submission
