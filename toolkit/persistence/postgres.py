"""The engine for PostgreSQL: the settings of each session, also behind a pooler such as PgBouncer.

A pooler refuses startup parameters that it does not know, and gives a server's session to another client after each
transaction. So behind a pooler the settings are made per transaction, and no statement has a name.
"""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from toolkit.configuration.server_urls import driver_options, schema_in
from toolkit.errors import DatabaseUnavailableError, SettingsError
from toolkit.foreign_code.time_limits import LONGEST_STEP
from toolkit.persistence.direct_statements import COMMITS_ALONE
from toolkit.persistence.driver_errors import take_values_out
from toolkit.persistence.own_connections import OWN, listen_to_errors
from toolkit.persistence.postgres_tls import with_tls
from toolkit.persistence.schema import use_schema

log = structlog.get_logger("toolkit")

#: How many connections a service's pool keeps, and how many more it may open under load.
_POOL_SIZE, _MAX_OVERFLOW = 10, 20
MOST_CONNECTIONS = _POOL_SIZE + _MAX_OVERFLOW
#: How long a connection attempt, and one statement, may take, in seconds, unless the URL sets it. Longer is an outage:
#: a network that goes silent is detected within half a minute.
_PATIENCE = {"timeout": 5, "command_timeout": 20}
#: How long, in seconds, a session may idle in its transaction, so that a silent one releases its locks. The step times
#: out before that, else the server would end its connection at the same moment.
LONGEST_IDLE = LONGEST_STEP + 15
#: The settings of each session: that limit, in milliseconds; and that each execution is planned on the tables as they
#: are: a plan cached while they were empty would scan them whole for as long as the connection lives.
_IDLE, _PLAN = "idle_in_transaction_session_timeout", "plan_cache_mode"
_SESSION = {_IDLE: f"{LONGEST_IDLE * 1000:.0f}", _PLAN: "force_custom_plan"}
#: Behind a pooler: unnamed statements, which don't collide with another client's in the same server session.
_POOLED: dict[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
#: A pooler's SQLSTATE for a startup parameter that it does not know.
_UNKNOWN_PARAMETER = "08P01"
#: A part of PgBouncer's error when it refuses a transaction in statement mode.
_STATEMENT_MODE = "statement pooling mode"


#: The same in SQL, for a session and for a transaction; a limit that is set already stays.
IN_SESSION, IN_TRANSACTION = (
    f"SELECT set_config('{_PLAN}', '{_SESSION[_PLAN]}', {is_local}),"
    f" set_config('{_IDLE}', coalesce(nullif(current_setting('{_IDLE}'), '0'), '{_SESSION[_IDLE]}'), {is_local})"
    for is_local in ("false", "true")
)


def postgres_engine(url: URL) -> AsyncEngine:
    """Return the engine for this address."""
    url, schema = schema_in(url)
    url, options = with_tls(*driver_options(url))
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        hide_parameters=True,  # an error's text goes into logs and tables, and parameters are personal data
        pool_size=_POOL_SIZE,
        max_overflow=_MAX_OVERFLOW,
        connect_args=_PATIENCE | options,
        execution_options={OWN: True},
    )
    use_schema(engine.dialect, schema)
    connector = _Connector(is_pooled=options.get("statement_cache_size") == 0)
    event.listen(engine.sync_engine, "do_connect", connector.connect)
    event.listen(engine.sync_engine, "connect", connector.connected)
    event.listen(engine.sync_engine, "begin", connector.begin)
    listen_to_postgres(engine)
    return engine


def listen_to_postgres(engine: AsyncEngine) -> None:
    """Handle the errors of the toolkit's connections."""
    listen_to_errors(engine, take_values_out, _invalidate_silent_pool, _discard_stale_statements)


class _Connector:
    """Opens connections: directly to the server, until a pooler is detected."""

    def __init__(self, *, is_pooled: bool) -> None:
        self._is_pooled = is_pooled
        self._has_transactions = False

    def connect(self, dialect: Dialect, _: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> DBAPIConnection:
        """Open a connection."""
        if not self._is_pooled:
            if connection := _connect_directly(dialect, arguments, options):
                return connection
            self._is_pooled = True
            log.info("a pooler is between the service and its database; settings are made in each transaction")
        connection = dialect.connect(*arguments, **options | _POOLED)
        if not self._has_transactions:
            _check_transaction_support(dialect, connection)
            self._has_transactions = True
        return connection

    def connected(self, _: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        """Note whether a statement may be a transaction of its own; a pooler may part its preparation from it."""
        record.info[COMMITS_ALONE] = not self._is_pooled

    def begin(self, connection: Connection) -> None:
        """Make in the transaction the setting that the session does not have."""
        if self._is_pooled:
            connection.exec_driver_sql(f"SET LOCAL {_IDLE} = {_SESSION[_IDLE]}")


def _connect_directly(dialect: Dialect, arguments: tuple[Any, ...], options: dict[str, Any]) -> DBAPIConnection | None:
    """Return a connection whose session has the settings, or None where a pooler refuses or ignores them."""
    try:
        connection = dialect.connect(*arguments, **options | {"server_settings": _SESSION})
    except Exception as error:  # of whatever the driver raises, only the code matters
        if getattr(error, "sqlstate", None) != _UNKNOWN_PARAMETER or (
            _IDLE not in str(error) and _PLAN not in str(error)
        ):
            raise
        return None
    if _has_settings(connection):
        return connection
    dialect.do_terminate(connection)
    return None


def _check_transaction_support(dialect: Dialect, connection: DBAPIConnection) -> None:
    """Check that the pooler keeps a session for the whole transaction.

    Raises:
        SettingsError: it is in statement mode.
    """
    driver: Any = connection.driver_connection
    try:
        await_only(driver.execute("BEGIN"))
        await_only(driver.execute("ROLLBACK"))
    except Exception as error:  # of whatever the driver raises, only the text matters
        dialect.do_terminate(connection)
        if _STATEMENT_MODE not in str(error):
            raise
        raise SettingsError(
            f"the pooler before the database refuses transactions: {error}; set pool_mode to transaction or session "
            "in pgbouncer.ini, for this database at least"
        ) from error


def _has_settings(connection: DBAPIConnection) -> bool:
    """Whether the session has the settings; a pooler may be configured to ignore them."""
    driver: Any = connection.driver_connection
    try:
        plan = await_only(driver.fetchval(f"SELECT current_setting('{_PLAN}')"))
    except Exception as error:
        if is_of_another_session(error):
            return False
        raise
    return bool(plan == _SESSION[_PLAN])


def is_of_another_session(error: Exception) -> bool:
    """Whether a statement's name is taken, or gone: another client had the same server session."""
    return getattr(error, "sqlstate", None) in ("42P05", "26000")


def _invalidate_silent_pool(context: ExceptionContext) -> DatabaseUnavailableError | None:
    """Treat a statement without an answer as a lost connection, and invalidate the whole pool.

    Otherwise each pooled connection would be tried in turn, and each would cost a timeout.
    """
    if not isinstance(context.original_exception, TimeoutError):
        return None
    context.is_disconnect = context.invalidate_pool_on_disconnect = True
    return DatabaseUnavailableError("the database did not answer in time: by default within 20 seconds")


def _discard_stale_statements(context: ExceptionContext) -> None:
    """Invalidate the whole pool after a change of a table whose old form its prepared statements return."""
    if type(context.original_exception).__name__ == "InvalidCachedStatementError":
        context.is_disconnect = context.invalidate_pool_on_disconnect = True
