"""A team's own engine: the toolkit checks that it fits, and works on connections of its own.

On PostgreSQL these come from the engine's pool. On SQLite, where the toolkit decides how transactions begin, they are
connections to the same file beside the pool. The team's own connections stay as they are.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AssertionPool, ConnectionPoolEntry, SingletonThreadPool, StaticPool
from sqlalchemy.util import await_only

from toolkit.errors import SettingsError
from toolkit.persistence.direct_statements import COMMITS_ALONE
from toolkit.persistence.own_connections import OWN
from toolkit.persistence.postgres import IN_SESSION, IN_TRANSACTION, is_of_another_session, listen_to_postgres
from toolkit.persistence.schema import use_schema
from toolkit.persistence.sqlite import sqlite_engine

_POSTGRES, _SQLITE = ("postgresql", "asyncpg"), ("sqlite", "aiosqlite")
#: Pools that give everyone the same connection, or no second one.
_SINGLE = (StaticPool, SingletonThreadPool, AssertionPool)
#: The one level at which two replicas see each other's entries as the fence needs it.
_LEVEL = "READ COMMITTED"


def on_team_engine(engine: AsyncEngine, schema: str | None = None) -> AsyncEngine:
    """Return an engine for the toolkit's connections to the database of a team's engine.

    Raises:
        SettingsError: the engine does not fit; the text has the cure.
    """
    _check(engine)
    if engine.dialect.name == "sqlite":
        use_schema(engine.dialect, schema)
        return _beside(engine)
    if schema and engine.sync_engine.get_execution_options().get("schema_translate_map"):
        raise SettingsError(
            f"the engine has a schema_translate_map, which hides the schema {schema}: hand over the engine without it, "
            "and set the map on the sessions of the application"
        )
    use_schema(engine.dialect, schema)
    event.listen(engine.sync_engine, "connect", _prepare_session)
    derived = engine.execution_options(**{OWN: True})
    derived.sync_engine.hide_parameters = True  # an error's text goes into logs and tables
    event.listen(derived.sync_engine, "begin", _prepare_transaction)
    listen_to_postgres(derived)
    return derived


def _check(engine: Any) -> None:
    if not isinstance(engine, AsyncEngine):
        what = "a synchronous engine" if isinstance(engine, Engine) else f"a {type(engine).__name__}"
        raise SettingsError(f"engine= is {what}: hand over one of sqlalchemy.ext.asyncio.create_async_engine")
    driver = (engine.dialect.name, engine.dialect.driver)
    if driver not in (_POSTGRES, _SQLITE):
        raise SettingsError(
            f"the engine is one for {'+'.join(driver)}: hand over one for {'+'.join(_POSTGRES)} or {'+'.join(_SQLITE)}"
        )
    if driver == _SQLITE and engine.url.database in (None, "", ":memory:"):
        raise SettingsError("the engine's SQLite is in memory, where each connection has its own tables: name a file")
    if isinstance(engine.pool, _SINGLE):
        raise SettingsError(
            f"the engine has a {type(engine.pool).__name__}, and the toolkit uses several connections at once: leave "
            "out poolclass, or name NullPool"
        )
    options, dialect = engine.sync_engine.get_execution_options(), engine.dialect
    level = options.get("isolation_level") or getattr(dialect, "_on_connect_isolation_level", None)
    if driver == _POSTGRES and level not in (None, _LEVEL):
        raise SettingsError(
            f"the engine's isolation level is {level}, and the toolkit's transactions need {_LEVEL}: hand over "
            f'engine.execution_options(isolation_level="{_LEVEL}"), which shares its pool'
        )


def _beside(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine of the toolkit's own on the same file, which encodes values as the team's does."""
    dialect: Any = engine.dialect
    pool = engine.sync_engine.pool

    def configure(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        pool.dispatch.connect(connection, record)

    return sqlite_engine(
        engine.url.set(drivername="sqlite"),
        configure=configure,
        json_serializer=dialect._json_serializer,
        json_deserializer=dialect._json_deserializer,
    )


def _prepare_session(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """Set what the toolkit needs for the whole session, unless a pooler shares the session with other clients."""
    driver: Any = connection.driver_connection
    # A pooler invents the process id with which it greets.
    is_direct = backend_of(driver) == driver.get_server_pid()
    if is_direct:
        await_only(driver.execute(IN_SESSION))
    record.info[COMMITS_ALONE] = is_direct


def backend_of(driver: Any) -> int | None:
    """Return the process id of the server's session; None where the session is not this connection's alone."""
    try:
        found: int = await_only(driver.fetchval("SELECT pg_backend_pid()"))
    except Exception as error:
        if is_of_another_session(error):
            return None
        raise
    return found


def _prepare_transaction(connection: Connection) -> None:
    """Set it for the transaction, where the session does not have it."""
    if not connection.info.get(COMMITS_ALONE):
        connection.exec_driver_sql(IN_TRANSACTION)
