"""PostgreSQL's engine: what each session is told, and how, where a pooler such as PgBouncer is in between.

A pooler refuses what it does not know when a connection is opened, and hands a server's session to another client after
each transaction. So nothing is told to the session then but to each transaction, and no statement has a name.
"""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from toolkit.configuration.server_urls import driver_options
from toolkit.errors import DatabaseUnavailableError, SettingsError
from toolkit.foreign_code.time_limits import LONGEST_STEP
from toolkit.persistence.driver_errors import take_values_out
from toolkit.persistence.postgres_tls import with_tls

log = structlog.get_logger("toolkit")

#: How many connections a service's pool keeps, and how many it may open beside them at the busiest moment.
_POOL_SIZE, _MAX_OVERFLOW = 10, 20
MOST_CONNECTIONS = _POOL_SIZE + _MAX_OVERFLOW
#: How long a connection attempt, and one statement, may take, in seconds, unless the URL says otherwise. Longer is an
#: outage: a network that went silent is to be noticed within half a minute.
_PATIENCE = {"timeout": 5, "command_timeout": 20}
#: For so many seconds a session may sit in its transaction: one that went silent holds its locks no longer. The step is
#: cut off before, else the server would end its connection in the same moment.
LONGEST_IDLE = LONGEST_STEP + 15
#: What each session is told: that, in milliseconds. And a statement is planned each time, upon the tables as they are:
#: a plan that was made and kept when they were empty would read them whole for as long as the connection lives.
_IDLE, _PLAN = "idle_in_transaction_session_timeout", "plan_cache_mode"
_SESSION = {_IDLE: f"{LONGEST_IDLE * 1000:.0f}", _PLAN: "force_custom_plan"}
#: Behind a pooler: statements without a name, which no other client of the same server's session meets.
_POOLED: dict[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
#: What a pooler says of a startup parameter that it does not know.
_UNKNOWN_PARAMETER = "08P01"
#: What PgBouncer's refusal of a transaction has in it, in statement mode.
_STATEMENT_MODE = "statement pooling mode"


def postgres_engine(url: URL) -> AsyncEngine:
    """Return the engine for this address."""
    url, options = with_tls(*driver_options(url))
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        hide_parameters=True,  # an error's text goes into logs and tables, and parameters are people's data
        pool_size=_POOL_SIZE,
        max_overflow=_MAX_OVERFLOW,
        connect_args=_PATIENCE | options,
    )
    way = _Way(is_pooled=options.get("statement_cache_size") == 0)
    event.listen(engine.sync_engine, "do_connect", way.connect)
    event.listen(engine.sync_engine, "begin", way.begin)
    event.listen(engine.sync_engine, "handle_error", take_values_out)
    event.listen(engine.sync_engine, "handle_error", _condemn_the_silent)
    return engine


class _Way:
    """How connections are made: straight to the server, until a pooler shows itself."""

    def __init__(self, *, is_pooled: bool) -> None:
        self._is_pooled = is_pooled
        self._has_transactions = False

    def connect(self, dialect: Dialect, _: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> DBAPIConnection:
        """Open a connection."""
        if not self._is_pooled:
            if connection := _connect_straight(dialect, arguments, options):
                return connection
            self._is_pooled = True
            log.info("a pooler is between the service and its database; each transaction has its settings told")
        connection = dialect.connect(*arguments, **options | _POOLED)
        if not self._has_transactions:
            _see_that_transactions_are_allowed(dialect, connection)
            self._has_transactions = True
        return connection

    def begin(self, connection: Connection) -> None:
        """Tell a transaction what the session could not be told."""
        if self._is_pooled:
            connection.exec_driver_sql(f"SET LOCAL {_IDLE} = {_SESSION[_IDLE]}")


def _connect_straight(dialect: Dialect, arguments: tuple[Any, ...], options: dict[str, Any]) -> DBAPIConnection | None:
    """Return a connection whose session has our settings, or None where a pooler refuses them or swallows them."""
    try:
        connection = dialect.connect(*arguments, **options | {"server_settings": _SESSION})
    except Exception as error:  # whatever the driver raises: only its code is of interest
        if getattr(error, "sqlstate", None) != _UNKNOWN_PARAMETER or (
            _IDLE not in str(error) and _PLAN not in str(error)
        ):
            raise
        return None
    if _has_settings(connection):
        return connection
    dialect.do_terminate(connection)
    return None


def _see_that_transactions_are_allowed(dialect: Dialect, connection: DBAPIConnection) -> None:
    """See that the pooler is in no mode that ends a session's lease within a transaction.

    Raises:
        SettingsError: it is in statement mode.
    """
    driver: Any = connection.driver_connection
    try:
        await_only(driver.execute("BEGIN"))
        await_only(driver.execute("ROLLBACK"))
    except Exception as error:  # whatever the driver raises: only its text is of interest
        dialect.do_terminate(connection)
        if _STATEMENT_MODE not in str(error):
            raise
        raise SettingsError(
            f"the pooler before the database refuses transactions: {error}; set pool_mode to transaction or session "
            "in pgbouncer.ini, for this database at least"
        ) from error


def _has_settings(connection: DBAPIConnection) -> bool:
    """Whether the session took what it was told; a pooler may be set to ignore it."""
    driver: Any = connection.driver_connection
    try:
        plan = await_only(driver.fetchval(f"SELECT current_setting('{_PLAN}')"))
    except Exception as error:
        # The name of our statement is taken, or gone: another client had the same server's session.
        if getattr(error, "sqlstate", None) in ("42P05", "26000"):
            return False
        raise
    return bool(plan == _SESSION[_PLAN])


def _condemn_the_silent(context: ExceptionContext) -> DatabaseUnavailableError | None:
    """Take a statement that got no answer for a lost connection, and the rest of the pool for no better.

    Else each pooled connection would be tried in its turn, and each would cost its own timeout.
    """
    if not isinstance(context.original_exception, TimeoutError):
        return None
    context.is_disconnect = context.invalidate_pool_on_disconnect = True
    return DatabaseUnavailableError("the database gave no answer in time: by default within 20 seconds")
