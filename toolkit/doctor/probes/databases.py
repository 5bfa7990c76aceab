"""Asking a service's database, by the very connection that the service itself would have."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.contract import Contract
from toolkit.declaration.service import Service
from toolkit.doctor.facts import ClockFacts, DatabaseFacts
from toolkit.doctor.probes.clocks import reading
from toolkit.doctor.probes.places import filesystem_of
from toolkit.doctor.probes.schema import lacks
from toolkit.errors import DatabaseUnavailableError
from toolkit.ids import new_id
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.known_steps import Undeclared, former
from toolkit.urls import is_loopback

_TIMEOUT = 10
#: The tables that former steps stand in.
_OF_STEPS = ("saga_log", "known_steps")
_PRAGMAS = ("synchronous", "journal_mode")
_PARAMETERS = ("fsync", "full_page_writes", "synchronous_commit", "max_connections", "superuser_reserved_connections")
_LIMITS = """
    SELECT (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS "the login's limit",
           (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS "the database's limit"
"""


async def ask_database(service: str, url: str, declared: Service | None) -> DatabaseFacts:
    """Return what a database tells; `declared` is None where the service's declarations are not at hand."""
    tables = declared.tables if declared else None
    facts = _before_asking(service, url, is_own_known=tables is not None)
    return facts if facts.fault else await _asked(facts, url, tables, declared)


def _before_asking(service: str, url: str, *, is_own_known: bool) -> DatabaseFacts:
    """Return where the database is; SQLite would make a file that is missing."""
    place = make_url(url)
    is_sqlite = place.drivername == "sqlite"
    host = place.host or "127.0.0.1"
    return DatabaseFacts(
        service=service,
        server=str(Path(place.database or "").resolve()) if is_sqlite else f"{host}:{place.port or 5432}",
        database=place.database or "",
        login=place.username or "",
        is_sqlite=is_sqlite,
        is_local=is_sqlite or is_loopback(host),
        own_tables_known=is_own_known,
        fault=f"there is no file {place.database}" if is_sqlite and not Path(place.database or "").is_file() else None,
    )


async def _asked(facts: DatabaseFacts, url: str, tables: MetaData | None, declared: Service | None) -> DatabaseFacts:
    database = Database(url)
    try:
        async with asyncio.timeout(_TIMEOUT), database.reading() as connection:
            facts = await (_ask_sqlite if facts.is_sqlite else _ask_postgres)(connection, facts)
            facts = replace(facts, lacks=await connection.run_sync(lacks, tables))
            facts = replace(facts, former_steps=await _former_steps(connection, facts, declared))
    except (DBAPIError, OSError) as error:
        return replace(facts, fault=describe_fault(error))
    except (DatabaseUnavailableError, TimeoutError) as error:
        return replace(facts, fault=str(error) or f"no answer within {_TIMEOUT} seconds")
    finally:
        await database.close()
    return facts if facts.is_sqlite else replace(facts, open_logins=await _open_logins(make_url(url)))


async def _former_steps(
    connection: AsyncConnection, facts: DatabaseFacts, declared: Service | None
) -> tuple[Undeclared, ...] | None:
    is_readable = not any(lack.table in _OF_STEPS for lack in facts.lacks)
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
    # pg_settings has what counts in this very session, whether the server, the database or the login says so.
    found = await connection.execute(
        text("SELECT name, setting, source FROM pg_settings WHERE name = ANY(:names)"), {"names": list(_PARAMETERS)}
    )
    rows = list(found)
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


async def _open_logins(place: URL) -> tuple[str, ...]:
    """Return the logins that get in by any password, or by their own name."""
    login = place.username or "postgres"
    if await _gets_in(place, login, f"wrong-{new_id()}"):
        return (f"{login}, by any password",)
    tried = dict.fromkeys((login, "postgres"))
    return tuple([f"{each}, by the password {each}" for each in tried if await _gets_in(place, each, each)])


async def _gets_in(place: URL, login: str, password: str) -> bool:
    database = Database(place.set(username=login, password=password).render_as_string(hide_password=False))
    try:
        await database.ping()
    except DatabaseUnavailableError:
        return False
    finally:
        await database.close()
    return True
