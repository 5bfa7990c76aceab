"""Facts from a service's database, over the connection that the service itself would have."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.contract import Contract
from toolkit.declaration.service import Service
from toolkit.doctor.facts import ClockFacts, DatabaseFacts
from toolkit.doctor.probes.clocks import reading
from toolkit.doctor.probes.places import filesystem_of
from toolkit.doctor.probes.schema import lacks
from toolkit.doctor.targets import Target
from toolkit.errors import DatabaseUnavailableError
from toolkit.ids import new_id
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.known_steps import UndeclaredStep, former
from toolkit.persistence.schema_version import read_version
from toolkit.urls import is_loopback

_TIMEOUT = 10
#: The tables that former steps are read from.
_STEP_TABLES = ("saga_log", "saga_known_steps")
_PRAGMAS = ("synchronous", "journal_mode")
_PARAMETERS = ("fsync", "full_page_writes", "synchronous_commit", "max_connections", "superuser_reserved_connections")
_LIMITS = """
    SELECT (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS "the login's limit",
           (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS "the database's limit"
"""


async def ask_database(target: Target, *, is_probing: bool) -> DatabaseFacts:
    """Return the facts of a target's database; `is_probing` tries passwords, too."""
    url = target.database_url or ""
    facts = _located(target, make_url(url))
    if facts.fault:
        return facts
    facts = await _asked(facts, url, target.declared)
    is_tried = is_probing and not facts.is_sqlite and facts.fault is None
    return replace(facts, open_logins=await _open_logins(make_url(url))) if is_tried else facts


def _located(target: Target, url: URL) -> DatabaseFacts:
    is_sqlite = url.drivername == "sqlite"
    is_missing = is_sqlite and not Path(url.database or "").is_file()  # SQLite would create it
    host = url.host or "127.0.0.1"
    return DatabaseFacts(
        service=target.name,
        server=str(Path(url.database or "").resolve()) if is_sqlite else f"{host}:{url.port or 5432}",
        database=url.database or "",
        login=url.username or "",
        is_sqlite=is_sqlite,
        is_local=is_sqlite or is_loopback(host),
        fault=f"there is no file {url.database}" if is_missing else None,
        own_tables_known=target.declared is not None and target.declared.tables is not None,
    )


async def _asked(facts: DatabaseFacts, url: str, declared: Service | None) -> DatabaseFacts:
    database = Database(url)
    try:
        async with asyncio.timeout(_TIMEOUT), database.reading() as connection:
            facts = await (_ask_sqlite if facts.is_sqlite else _ask_postgres)(connection, facts)
            facts = replace(
                facts,
                version=await connection.run_sync(read_version),
                lacks=await connection.run_sync(lacks, declared.tables if declared else None),
            )
            return replace(facts, former_steps=await _former_steps(connection, facts, declared))
    except (DBAPIError, OSError) as error:
        return replace(facts, fault=describe_fault(error))
    except (DatabaseUnavailableError, TimeoutError) as error:
        return replace(facts, fault=str(error) or f"no answer within {_TIMEOUT} seconds")
    finally:
        await database.close()


async def _former_steps(
    connection: AsyncConnection, facts: DatabaseFacts, declared: Service | None
) -> tuple[UndeclaredStep, ...] | None:
    is_readable = not any(lack.table in _STEP_TABLES for lack in facts.lacks)
    return tuple(await former(connection, Contract.of(declared))) if declared and is_readable else None


async def _ask_sqlite(connection: AsyncConnection, facts: DatabaseFacts) -> DatabaseFacts:
    path = Path(facts.server)
    return replace(
        facts,
        settings={name: str(await connection.scalar(text(f"PRAGMA {name}"))) for name in _PRAGMAS},
        filesystem=filesystem_of(path),
        free_bytes=shutil.disk_usage(path).free,
    )


async def _ask_postgres(connection: AsyncConnection, facts: DatabaseFacts) -> DatabaseFacts:
    # pg_settings has the values of this session, set by the server, the database or the login.
    query = text("SELECT name, setting, source FROM pg_settings WHERE name = ANY(:names)")
    rows = list(await connection.execute(query, {"names": list(_PARAMETERS)}))
    settings: dict[str, str] = {row.name: row.setting for row in rows}
    limits = (await connection.execute(text(_LIMITS))).mappings().one()
    return replace(
        facts,
        settings=settings,
        sources={row.name: row.source for row in rows},
        connections=_bounds(settings, limits),
        clock=await _clock(connection, facts),
    )


def _bounds(settings: Mapping[str, str], limits: Mapping[Any, Any]) -> Mapping[str, int]:
    reserved = int(settings["superuser_reserved_connections"])
    own = {str(name): int(limit) for name, limit in limits.items() if limit is not None and limit >= 0}
    return {"max_connections": int(settings["max_connections"]) - reserved} | own


async def _clock(connection: AsyncConnection, facts: DatabaseFacts) -> ClockFacts:
    asked = datetime.now(UTC)
    at: datetime = await connection.scalar(text("SELECT clock_timestamp()"))
    return reading(f"PostgreSQL at {facts.server}", at, asked=asked, answered=datetime.now(UTC))


async def _open_logins(url: URL) -> tuple[str, ...]:
    """Return the logins that any password, or their own name as a password, opens."""
    login = url.username or "postgres"
    if await _is_open(url, login, f"wrong-{new_id()}"):
        return (f"{login}, by any password",)
    tried = dict.fromkeys((login, "postgres"))
    return tuple([f"{each}, by the password {each}" for each in tried if await _is_open(url, each, each)])


async def _is_open(url: URL, login: str, password: str) -> bool:
    database = Database(url.set(username=login, password=password).render_as_string(hide_password=False))
    try:
        await database.ping()
    except DatabaseUnavailableError:
        return False
    finally:
        await database.close()
    return True
