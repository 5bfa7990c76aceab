"""Checks of the services' own, of goods or money for example, which compare tables with tables.

`saga verify` runs them beside the toolkit's invariants, and `saga demo` while its sagas are under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit.configuration.settings import Settings, load_settings
from toolkit.errors import UnreachableError
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import describe_fault
from toolkit.protocol.fence import SagaState
from toolkit.protocol.keys import SagaKey
from toolkit.urls import shown_url

#: The pause between two runs of the same checks, in seconds: many moments of a saga are seen, and its services get on.
_PAUSE = 0.05

#: How each saga ended, by its type and id; None for an unfinished one.
SagaStates = Mapping[SagaKey, SagaState | None]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A claim, whether it holds, and the figures that were found."""

    claim: str
    holds: bool
    found: str


#: Takes the databases' URLs by service, and how each saga ended. It raises UnreachableError where data that it needs
#: can't be read.
AccountCheck = Callable[[Mapping[str, str], SagaStates], Awaitable[CheckResult]]


def url_of(service: str, databases: Mapping[str, str]) -> str:
    """Return the URL of a service's database.

    Raises:
        UnreachableError: the service is not named by its database.
    """
    if service not in databases:
        raise UnreachableError(f"the accounts: name {service} by its database, not by its API")
    return databases[service]


@asynccontextmanager
async def reading(url: str, *, variable: str = "") -> AsyncIterator[AsyncSession]:
    """Open a session on a database for a check that only reads: it waits for no writer.

    `variable`: the one that names the database, where that is no service's.

    Raises:
        UnreachableError: the database can't be read, or is a file that does not exist.
    """
    if url.startswith("sqlite:") and not _is_file(url):
        cure = f"; name the database in {variable}" if variable else ""
        raise UnreachableError(f"the accounts: there is no {shown_url(url)}{cure}")
    database = Database(url)
    try:
        async with database.reading() as connection:
            yield AsyncSession(connection, expire_on_commit=False)
    except (DBAPIError, OSError) as error:
        raise UnreachableError(f"the accounts: a database can't be read: {describe_fault(error)}") from error
    finally:
        await database.close()


def settings_beside(url: str) -> Settings:
    """Return settings with the directory of this database as their data directory, if it is a file."""
    is_file = url.startswith("sqlite:///")
    return load_settings(data_dir=Path(url.removeprefix("sqlite:///")).parent) if is_file else load_settings()


def _is_file(url: str) -> bool:
    return Path(url.removeprefix("sqlite:///")).is_file()


class RepeatedChecks:
    """Runs checks again and again while sagas are under way; a check that failed once has failed.

    async with RepeatedChecks(CHECKS, databases) as repeated:
        …
    results = await repeated.results(states)
    """

    def __init__(self, checks: Sequence[AccountCheck], databases: Mapping[str, str]) -> None:
        self._checks, self._databases = checks, databases
        self._results: list[CheckResult | None] = [None] * len(checks)
        self._is_over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.runs = 0

    async def __aenter__(self) -> Self:
        """Run them from now on."""
        self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the run in progress.

        Raises:
            UnreachableError: data that a check needs could not be read.
        """
        self._is_over.set()
        if self._task:
            await self._task

    async def results(self, states: SagaStates) -> list[CheckResult]:
        """Run them once more, with the sagas' ends, and return the results of all runs."""
        await self._run(states)
        moments = f"at {self.runs} moments"
        return [replace(each, found=f"{each.found}; {moments}") if each.holds else each for each in self._found()]

    async def _repeat(self) -> None:
        while self._checks and not self._is_over.is_set():
            await self._run({})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), _PAUSE)

    async def _run(self, states: SagaStates) -> None:
        for place, check in enumerate(self._checks):
            before = self._results[place]
            if before is None or before.holds:
                self._results[place] = await check(self._databases, states)
        self.runs += 1

    def _found(self) -> list[CheckResult]:
        return [each for each in self._results if each is not None]
