"""Redriving or dropping many letters: in bites, in the background, under a name that a second click finds again.

A job takes the letters that were there when it was looked at, and no newer ones: what it sent may have come back
meanwhile, which is looked for at the end. It goes on when whoever asked for it closes the browser, and ends with the
console; what was done by then is done, and what was not is still a letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from toolkit.client.service_client import ServiceClient
from toolkit.errors import AmbiguousSagaError, NotAllowedError, UnreachableError
from toolkit.operations.dead_letters import BatchResult
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection

#: As many bites are looked at before a redrive: 1,000 letters; of the rest their number is enough.
_LOOKED_AT = 10
#: As many finished jobs are remembered.
_MOST = 200
#: As many letters as a service lists at once: so many of those that were redriven are known again.
_MOST_KNOWN = 1_000
#: How long a job looks whether letters come back, and how often, in seconds: what can't be read is back at once.
_WATCHED, _WATCH_EVERY = 5.0, 1.0


class Verb(StrEnum):
    """What is done with letters."""

    REDRIVE = "redrive"
    DROP = "drop"

    @property
    def doing(self) -> str:
        """As what is under way."""
        return {"redrive": "Redriving", "drop": "Dropping"}[self]

    @property
    def done(self) -> str:
        """As what was done."""
        return {"redrive": "redriven", "drop": "dropped"}[self]

    async def batch(
        self, client: ServiceClient, which: Selection, by: Operator, *, after: str, dry_run: bool = False
    ) -> BatchResult:
        """Do it with one bite of the letters."""
        act = client.drop if self is Verb.DROP else client.redrive
        return await act(which, by, after=after, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class Look:
    """What a redrive or a drop would do, found out by a dry run: how many letters, and why some would be refused.

    `up_to` is the newest letter that was there; `is_all` says whether all were looked at.
    """

    total: int
    looked_at: int
    would_go: int
    refused: dict[str, int]
    steps: dict[str, int]
    up_to: str | None
    is_all: bool


@dataclass(slots=True)
class Job:
    """A redrive or a drop under way, or over; `back` counts the letters that came back, where that is known."""

    name: str
    verb: Verb
    service: str
    which: Selection
    by: Operator
    total: int
    begun_at: datetime
    done: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    fault: str | None = None
    ended_at: datetime | None = None
    sent: frozenset[str] = frozenset()
    newest: str = ""
    back: int | None = None
    is_watched: bool = True

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done."""
        return self.ended_at is not None

    @property
    def is_final(self) -> bool:
        """Whether there is nothing more to tell."""
        return self.is_over and not self.is_watched

    @property
    def knows_all(self) -> bool:
        """Whether all its letters would be known again."""
        return self.total <= _MOST_KNOWN

    @property
    def seen(self) -> int:
        """How many letters it has dealt with."""
        return self.done + self.refused.total()


class Jobs:
    """All jobs, by the names that the pages gave them."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Job | None:
        """Return the job of that name."""
        return self._jobs.get(name)

    def listed(self) -> list[Job]:
        """Return all jobs, the latest first."""
        return list(reversed(self._jobs.values()))

    def start(self, name: str, verb: Verb, client: ServiceClient, which: Selection, by: Operator, total: int) -> Job:
        """Return the job of that name, or one under way on the same letters; else begin it."""
        under_way = (each for each in self._jobs.values() if not each.is_over)
        meant = (verb, client.service)
        same = (each for each in under_way if (each.verb, each.service) == meant and _is_same(each.which, which))
        if known := self._jobs.get(name) or next(same, None):
            return known
        self._forget_old()
        job = Job(name, verb, client.service, which, by, total, datetime.now(UTC))
        self._jobs[name] = job
        task = asyncio.create_task(_run(job, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def close(self) -> None:
        """Stop what is under way, after its bite."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget_old(self) -> None:
        over = [name for name, job in self._jobs.items() if job.is_over]
        for name in over[: max(len(over) - _MOST, 0)]:
            del self._jobs[name]


async def look(verb: Verb, client: ServiceClient, which: Selection) -> Look:
    """Return what a redrive or a drop of these letters would do.

    Raises:
        UnreachableError: the service can't be asked.
        NotAllowedError: it wants another token.
        AmbiguousSagaError: sagas of several types have the id that is meant.
    """
    newest = await client.dead_letters(which, limit=1)
    total = await client.count(which)
    refused: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    after: str | None = ""
    would_go = looked_at = 0
    for _ in range(_LOOKED_AT):
        if after is None:
            break
        batch = await verb.batch(client, which, Operator("console", "a look beforehand"), after=after, dry_run=True)
        for row in batch.rows:
            looked_at += 1
            steps[row["step"] or "before any step"] += 1
            if row["outcome"] == "refused":
                refused[_why(row)] += 1
            else:
                would_go += 1
        after = batch.after
    up_to = newest[0]["id"] if newest else None
    return Look(total, looked_at, would_go, dict(refused), dict(steps), up_to, looked_at >= total)


async def _run(job: Job, client: ServiceClient) -> None:
    """Redrive or drop bite by bite; then see what comes back."""
    after: str | None = ""
    try:
        if job.verb is Verb.REDRIVE:
            await _remember(job, client)
        while after is not None:
            batch = await job.verb.batch(client, job.which, job.by, after=after)
            for row in batch.rows:
                if row["outcome"] == "refused":
                    job.refused[_why(row)] += 1
                else:
                    job.done += 1
            after = batch.after
    except (UnreachableError, NotAllowedError, AmbiguousSagaError) as error:
        job.fault = str(error)
    finally:
        job.ended_at = datetime.now(UTC)
        job.is_watched = job.verb is Verb.REDRIVE and job.done > 0
    try:
        await _watch(job, client)
    finally:
        job.is_watched = False


async def _remember(job: Job, client: ServiceClient) -> None:
    """Keep by which ids the letters' messages would be known again; one without gets its letter's."""
    dead_letters = await client.dead_letters(job.which, limit=_MOST_KNOWN)
    job.sent = frozenset(row["message_id"] or row["id"] for row in dead_letters)
    job.newest = max((row["id"] for row in dead_letters), default="")


async def _watch(job: Job, client: ServiceClient) -> None:
    until = time.monotonic() + _WATCHED
    while job.is_watched and time.monotonic() < until:
        await asyncio.sleep(_WATCH_EVERY)
        await see_what_came_back(job, client)
        job.is_watched = job.back is None or job.back < job.done


async def see_what_came_back(job: Job, client: ServiceClient) -> None:
    """Count the letters that a redrive sent and that are letters again, whatever for; as before where none can tell."""
    with contextlib.suppress(UnreachableError, NotAllowedError):
        dead_letters = await client.dead_letters(Selection(), limit=_MOST_KNOWN)
        job.back = sum(row["id"] > job.newest and row["message_id"] in job.sent for row in dead_letters)


def _why(row: dict[str, object]) -> str:
    """Return why a letter is refused, without its saga's id, so that equal reasons count as one."""
    why = str(row.get("why") or "it was gone already")
    return why.replace(f"saga {row.get('saga_id')} ", "the saga ")


def _is_same(one: Selection, other: Selection) -> bool:
    """Whether two jobs mean the same letters, but for those that came in between."""
    names = ("reason", "step", "saga_type", "saga_id")
    return all(getattr(one, name) == getattr(other, name) for name in names)
