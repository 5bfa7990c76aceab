"""The services' databases of one measurement, and the figures that they have afterwards."""

from __future__ import annotations

import math
import sqlite3
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import asyncpg

from benchmarks.saga import EFFECTS, SERVICES, Effects
from tests.conftest import PostgresDatabases
from tests.servers import POSTGRESQL

#: The benchmark's own PostgreSQL commits durably, counts statements, and has connections for four replicas.
DURABLE_POSTGRESQL = replace(
    POSTGRESQL, command="postgres -c shared_preload_libraries=pg_stat_statements -c max_connections=300"
)

#: Two entries of a saga that ended long ago; its id is of the same kind as those of the load.
_OLD_ENTRIES = """
INSERT INTO saga_log (service, saga_id, saga_type, step, position, from_state, to_state, saga_state, event_id,
    event_type, emitted_id, emitted_type, emitted_body, attempt, at)
SELECT '{service}', md5('{service}' || saga)::uuid::text, 'bench', 'step', position,
    CASE position WHEN 2 THEN 'completed' END,
    CASE position WHEN 1 THEN 'completed' ELSE 'confirmed' END,
    CASE position WHEN 1 THEN 'Pending' ELSE 'Completed' END,
    gen_random_uuid()::text, 'Event', gen_random_uuid()::text, 'Event', repeat('x', 100), 1, now() - interval '7 days'
FROM generate_series(1, {sagas}) saga, generate_series(1, 2) position
"""
_CALLS = """
SELECT sum(calls) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE datname = ANY($1) AND query !~* '^(begin|commit|rollback|savepoint|release)'
"""
#: The errors of a PostgreSQL that has not loaded or installed pg_stat_statements, or does not grant it.
_UNCOUNTED = (
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.UndefinedFileError,
    asyncpg.InsufficientPrivilegeError,
)
_COMMITS = "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = ANY($1)"


@dataclass(frozen=True, slots=True)
class Meter:
    """The databases' work up to now; not a number where they do not count it."""

    statements: float = math.nan
    commits: float = math.nan


class Databases(Protocol):
    """One database for each service."""

    async def urls(self) -> dict[str, str]:
        """Create them, and return their URLs by service."""
        ...

    async def meter(self) -> Meter:
        """Read their work up to now."""
        ...

    async def effects(self) -> dict[str, Effects]:
        """Return the rows of each service's own table."""
        ...

    async def drop(self) -> None:
        """Remove them."""
        ...


@dataclass(slots=True)
class OnPostgres:
    """Databases on one server."""

    server: str
    _made: PostgresDatabases = field(init=False)
    _urls: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give the databases names of their own."""
        self._made = PostgresDatabases(self.server)

    async def urls(self) -> dict[str, str]:
        """Create them, and return their URLs by service."""
        self._urls = {name: await self._made.url(name) for name in SERVICES}
        return self._urls

    async def age(self, entries: int) -> None:
        """Write this many old entries, in all, into the services' logs, and wait until the server has stored them.

        Old entries were vacuumed and checkpointed long ago: that work does not belong to the load. Nor does the first
        change of a page after a checkpoint, which writes the whole page: a service meets it once in some minutes, so
        the indexes are written afterwards.
        """
        for name, url in self._urls.items():
            await _execute(url, _OLD_ENTRIES.format(service=name, sagas=entries // len(self._urls) // 2))
            await _execute(url, "VACUUM ANALYZE saga_log")
        await _execute(self.server, "CHECKPOINT")
        for url in self._urls.values():
            await _execute(url, "REINDEX TABLE saga_log")

    async def meter(self) -> Meter:
        """Read their work up to now."""
        names = [url.rpartition("/")[2] for url in self._urls.values()]
        connection = await asyncpg.connect(self.server)
        try:
            return Meter(
                statements=await _statements(connection, names),
                commits=float(await connection.fetchval(_COMMITS, names) or 0),
            )
        finally:
            await connection.close()

    async def effects(self) -> dict[str, Effects]:
        """Return the rows of each service's own table."""
        found = {}
        for name, url in self._urls.items():
            connection = await asyncpg.connect(url)
            try:
                row = await connection.fetchrow(EFFECTS)
                found[name] = Effects(rows=row["rows"], total=row["total"])
            finally:
                await connection.close()
        return found

    async def drop(self) -> None:
        """Remove them."""
        await self._made.drop()


@dataclass(slots=True)
class OnFiles:
    """SQLite files in a directory of their own."""

    _directory: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    async def urls(self) -> dict[str, str]:
        """Return their URLs by service."""
        return {name: f"sqlite:///{self._file(name)}" for name in SERVICES}

    async def meter(self) -> Meter:
        """Return no figures: SQLite does not count."""
        return Meter()

    async def effects(self) -> dict[str, Effects]:
        """Return the rows of each service's own table."""
        found = {}
        for name in SERVICES:
            connection = sqlite3.connect(self._file(name))
            rows, total, _ = connection.execute(EFFECTS).fetchone()
            connection.close()
            found[name] = Effects(rows=rows, total=total)
        return found

    async def drop(self) -> None:
        """Remove them."""
        self._directory.cleanup()

    def _file(self, name: str) -> Path:
        return Path(self._directory.name) / f"{name}.db"


async def _statements(connection: asyncpg.Connection, databases: list[str]) -> float:
    """Return how many statements these databases have run; not a number where the server does not count them."""
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        return float(await connection.fetchval(_CALLS, databases) or 0)
    except _UNCOUNTED as error:
        _report_uncounted(str(error))
        return math.nan


@cache
def _report_uncounted(error: str) -> None:
    """Print once what is missing."""
    print(
        f"statements are not counted, so their column is empty: {error}. Start PostgreSQL with "
        "shared_preload_libraries=pg_stat_statements, or Docker, which runs one that has it",
        file=sys.stderr,
    )


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
