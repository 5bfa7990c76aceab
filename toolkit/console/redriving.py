"""Redriving many letters: in bites, in the background, under a name that a second click finds again.

A job takes the letters that were there when it was looked at, and no newer ones: what it sent may have come back
meanwhile. It goes on when whoever asked for it closes the browser, and ends with the console; what was done by then is
done, and what was not is still a letter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from toolkit.audit import Operator
from toolkit.controls import Controls
from toolkit.dead_letters import Selection
from toolkit.errors import NotAllowedError, UnreachableError

#: As many bites are looked at before a redrive: 1,000 letters; of the rest their number is enough.
_LOOKED_AT = 10
#: As many finished jobs are remembered.
_MOST = 200


@dataclass(frozen=True, slots=True)
class Look:
    """What a redrive would do, found out by a dry run: how many letters, and why some would be refused.

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
    """A redrive under way, or over."""

    name: str
    service: str
    which: Selection
    by: Operator
    total: int
    begun_at: datetime
    done: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    fault: str | None = None
    ended_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        return self.ended_at is not None

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

    def start(self, name: str, controls: Controls, which: Selection, by: Operator, total: int) -> Job:
        """Return the job of that name, or one under way on the same letters; else begin it."""
        under_way = (each for each in self._jobs.values() if not each.is_over)
        same = (each for each in under_way if each.service == controls.service and _is_same(each.which, which))
        if known := self._jobs.get(name) or next(same, None):
            return known
        self._forget_old()
        job = Job(name, controls.service, which, by, total, datetime.now(UTC))
        self._jobs[name] = job
        task = asyncio.create_task(_run(job, controls))
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


async def look(controls: Controls, which: Selection) -> Look:
    """Return what a redrive of these letters would do.

    Raises:
        UnreachableError: the service can't be asked.
        NotAllowedError: it wants another token.
    """
    newest = await controls.letters(which, limit=1)
    total = await controls.count(which)
    refused: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    after: str | None = ""
    would_go = looked_at = 0
    for _ in range(_LOOKED_AT):
        if after is None:
            break
        bite = await controls.redrive(which, Operator("console", "a look beforehand"), after=after, dry_run=True)
        for row in bite.rows:
            looked_at += 1
            steps[row["step"] or "before any step"] += 1
            if row["outcome"] == "refused":
                refused[_why(row)] += 1
            else:
                would_go += 1
        after = bite.after
    up_to = newest[0]["id"] if newest else None
    return Look(total, looked_at, would_go, dict(refused), dict(steps), up_to, looked_at >= total)


async def _run(job: Job, controls: Controls) -> None:
    """Redrive bite by bite."""
    after: str | None = ""
    try:
        while after is not None:
            bite = await controls.redrive(job.which, job.by, after=after)
            for row in bite.rows:
                if row["outcome"] == "refused":
                    job.refused[_why(row)] += 1
                else:
                    job.done += 1
            after = bite.after
    except (UnreachableError, NotAllowedError) as error:
        job.fault = str(error)
    finally:
        job.ended_at = datetime.now(UTC)


def _why(row: dict[str, object]) -> str:
    """Return why a letter is refused, without its saga's id, so that equal reasons count as one."""
    why = str(row.get("why") or "it was gone already")
    return why.replace(f"saga {row.get('saga_id')} ", "the saga ")


def _is_same(one: Selection, other: Selection) -> bool:
    """Whether two redrives mean the same letters, but for those that came in between."""
    return (one.reason, one.step, one.saga_id) == (other.reason, other.step, other.saga_id)
