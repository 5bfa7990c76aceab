"""Redrive or drop many dead letters: in batches, in the background, under a name that a second click finds again.

A job takes the dead letters of its dry run and no newer ones, since messages that it redrives can fail again meanwhile;
those are counted at the end. It goes on when the browser is closed, and ends with the console's process: each of its
dead letters is then processed or unchanged.
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
from toolkit.operations.outcomes import BatchResult, DeadLetterOutcome
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection

#: How many batches a dry run checks: 1,000 dead letters; the rest is counted only.
_CHECKED_BATCHES = 10
#: How many finished jobs are kept.
_MOST_JOBS = 200
#: How many dead letters a service lists at once, and so how many redriven ones a job recognises.
_MOST_KNOWN = 1_000
#: How long and how often a job counts messages that fail again, in seconds: invalid ones fail at once.
_WATCHED, _WATCH_EVERY = 5.0, 1.0


class JobAction(StrEnum):
    """What a job does with dead letters."""

    REDRIVE = "redrive"
    DROP = "drop"

    @property
    def progressive(self) -> str:
        """The verb of a running job."""
        return {"redrive": "Redriving", "drop": "Dropping"}[self]

    @property
    def participle(self) -> str:
        """The verb of a finished job."""
        return {"redrive": "redriven", "drop": "dropped"}[self]

    async def batch(
        self, client: ServiceClient, which: Selection, by: Operator, *, after: str, dry_run: bool = False
    ) -> BatchResult[DeadLetterOutcome]:
        """Process one batch of dead letters."""
        act = client.drop if self is JobAction.DROP else client.redrive
        return await act(which, by, after=after, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class Preview:
    """The result of a dry run: how many dead letters there are, and why some would be refused.

    `up_to` is the id of the newest one; `is_all`: each one was checked.
    """

    total: int
    checked: int
    would_go: int
    refused: dict[str, int]
    steps: dict[str, int]
    up_to: str | None
    is_all: bool


@dataclass(slots=True)
class Job:
    """A redrive or a drop, running or finished; `failed_again` counts redriven messages that are dead letters again."""

    name: str
    verb: JobAction
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
    failed_again: int | None = None
    is_watched: bool = True

    @property
    def is_over(self) -> bool:
        """Whether the job has processed its last batch."""
        return self.ended_at is not None

    @property
    def is_final(self) -> bool:
        """Whether the job does not change any more."""
        return self.is_over and not self.is_watched

    @property
    def recognises_all(self) -> bool:
        """Whether the job recognises all of its messages when they fail again."""
        return self.total <= _MOST_KNOWN

    @property
    def processed(self) -> int:
        """How many dead letters the job has processed."""
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
        """Return all jobs, the newest first."""
        return list(reversed(self._jobs.values()))

    def start(
        self, name: str, verb: JobAction, client: ServiceClient, which: Selection, by: Operator, total: int
    ) -> Job:
        """Return the job of that name, or the running one of the same dead letters; else start it."""
        running = (each for each in self._jobs.values() if not each.is_over)
        wanted = (verb, client.service)
        same = (each for each in running if (each.verb, each.service) == wanted and _is_same(each.which, which))
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
        """Stop running jobs after their current batch."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget_old(self) -> None:
        over = [name for name, job in self._jobs.items() if job.is_over]
        for name in over[: max(len(over) - _MOST_JOBS, 0)]:
            del self._jobs[name]


async def preview(verb: JobAction, client: ServiceClient, which: Selection) -> Preview:
    """Return what a redrive or a drop of the selected dead letters would do.

    Raises:
        UnreachableError: the service does not answer.
        NotAllowedError: the service requires another token.
        AmbiguousSagaError: sagas of several types have the selected id.
    """
    newest = await client.dead_letters(which, limit=1)
    total = await client.count(which)
    refused: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    after: str | None = ""
    would_go = checked = 0
    for _ in range(_CHECKED_BATCHES):
        if after is None:
            break
        batch = await verb.batch(client, which, Operator("console", "dry run"), after=after, dry_run=True)
        for row in batch.rows:
            checked += 1
            steps[row.step or "before any step"] += 1
            if row.is_refused:
                refused[_why(row)] += 1
            else:
                would_go += 1
        after = batch.after
    up_to = newest[0].id if newest else None
    return Preview(total, checked, would_go, dict(refused), dict(steps), up_to, checked >= total)


async def _run(job: Job, client: ServiceClient) -> None:
    """Redrive or drop batch by batch; then count messages that fail again."""
    after: str | None = ""
    try:
        if job.verb is JobAction.REDRIVE:
            await _record_sent(job, client)
        while after is not None:
            batch = await job.verb.batch(client, job.which, job.by, after=after)
            for row in batch.rows:
                if row.is_refused:
                    job.refused[_why(row)] += 1
                else:
                    job.done += 1
            after = batch.after
    except (UnreachableError, NotAllowedError, AmbiguousSagaError) as error:
        job.fault = str(error)
    finally:
        job.ended_at = datetime.now(UTC)
        job.is_watched = job.verb is JobAction.REDRIVE and job.done > 0
    try:
        await _watch(job, client)
    finally:
        job.is_watched = False


async def _record_sent(job: Job, client: ServiceClient) -> None:
    """Keep the ids of the messages to redrive; one without an id gets its dead letter's."""
    dead_letters = await client.dead_letters(job.which, limit=_MOST_KNOWN)
    job.sent = frozenset(row.message_id or row.id for row in dead_letters)
    job.newest = max((row.id for row in dead_letters), default="")


async def _watch(job: Job, client: ServiceClient) -> None:
    until = time.monotonic() + _WATCHED
    while job.is_watched and time.monotonic() < until:
        await asyncio.sleep(_WATCH_EVERY)
        await count_failed_again(job, client)
        job.is_watched = job.failed_again is None or job.failed_again < job.done


async def count_failed_again(job: Job, client: ServiceClient) -> None:
    """Count redriven messages that are dead letters again; the count stays while the service is unreachable."""
    with contextlib.suppress(UnreachableError, NotAllowedError):
        dead_letters = await client.dead_letters(Selection(), limit=_MOST_KNOWN)
        job.failed_again = sum(row.id > job.newest and row.message_id in job.sent for row in dead_letters)


def _why(row: DeadLetterOutcome) -> str:
    """Return why a dead letter is refused, without its saga's id, so that equal reasons count as one."""
    return (row.why or "it no longer exists").replace(f"saga {row.saga_id} ", "the saga ")


def _is_same(one: Selection, other: Selection) -> bool:
    """Whether two selections differ in their newest dead letter only."""
    names = ("reason", "step", "saga_type", "saga_id")
    return all(getattr(one, name) == getattr(other, name) for name in names)
