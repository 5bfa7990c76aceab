"""What is done by a click, once: the page that asks for it names it beforehand, so that a second click finds the first.

Kept in this process alone, and not for long: who comes back to it later finds what happened in the audit.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

#: As many deeds are remembered: more than people click in a day.
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Line:
    """What one service did: how it went (`done`, `refused`, `away`, `nothing`), and the facts."""

    service: str
    outcome: str
    text: str


@dataclass(slots=True)
class Submission:
    """A thing that is being done, or was."""

    heading: str
    task: asyncio.Task[list[Line]]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> list[Line]:
        """What was done."""
        return self.task.result() if self.task.done() else []


class Submissions:
    """All deeds, by the names that the pages gave them."""

    def __init__(self) -> None:
        self._known: dict[str, Submission] = {}

    @staticmethod
    def new_name() -> str:
        """Return a name for what a form may do."""
        return secrets.token_urlsafe(12)

    def get(self, name: str) -> Submission | None:
        """Return the deed of that name."""
        return self._known.get(name)

    async def once(self, name: str, heading: str, doing: Callable[[], Awaitable[list[Line]]]) -> Submission:
        """Do it, unless it was done under that name; who asks goes away, and it is done nevertheless."""
        if name not in self._known:
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[name] = Submission(heading, asyncio.ensure_future(doing()))
        submission = self._known[name]
        await asyncio.shield(submission.task)
        return submission
