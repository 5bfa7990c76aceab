"""Classify database errors: what is at fault, whether a retry helps, and what else does.

Only an error's class and code are read here, and for a missing table its text. No error proves an outage:
`availability` probes on another connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy import exc
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError

from toolkit.errors import DatabaseUnavailableError, UnrecordedError, describe
from toolkit.persistence.postgres_tls import tls_fault

log = structlog.get_logger("toolkit")

#: PostgreSQL's SQLSTATEs. Gone: connection lost, shutting down, starting up. Unfit: out of resources, broken, now a
#: replica. Closed: accepts no connection. SQLAlchemy does not distinguish these from other errors.
_GONE, _UNFIT, _CLOSED = ("08", "57P", "25P03"), ("53", "58", "25006"), ("55000",)
#: Login refused: a wrong login, an unknown database, or a pooler that knows neither. An operator can repair it.
_REFUSED = ("28", "3D", "08P01")
#: Values refused: they can't be stored as they are, violate a constraint, or are rejected by a trigger.
_OF_DATA, _OF_VALUES = ("22", "54"), ("22", "23", "54", "P0")
#: How SQLite and PostgreSQL name a table that does not exist; PostgreSQL may do so in another language.
_MISSING_TABLE = re.compile(r"no such table: (?P<sqlite>\S+)|[\"«„](?P<postgres>[^\"»“]+)[\"»“]")
#: SQLite's errors for a file that is no database, or that this process may not read or write.
_UNUSABLE = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_PERM", "SQLITE_AUTH")
#: SQLite's errors for a file that can't be written now.
_UNWRITABLE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR")
_TABLE_GONE = "restore the table; if its rows are no longer needed, restart the service, which creates the table"
_OTHER_VERSION = "add the missing column: another version created the table"
_FOREIGN_RULE = "remove the constraint or trigger that was added to the toolkit's table"
#: How to repair an error of the toolkit's own statements, by a prefix of PostgreSQL's code or a part of SQLite's text.
_CURES = {
    "42501": "grant the service's login SELECT, INSERT, UPDATE and DELETE on the toolkit's tables, and USAGE on the "
    "sequence saga_log_id_seq",
    "42P01": _TABLE_GONE,
    "42703": _OTHER_VERSION,
    "23": _FOREIGN_RULE,
    "P0001": _FOREIGN_RULE,
    "25006": "name the primary in SAGA_DATABASE_URL, or set default_transaction_read_only to off",
    "53100": "free space on the database's disk",
    "53300": "raise max_connections, or run fewer replicas",
    "55P03": "end the transaction that holds the lock",
    "57014": "end the transaction that holds the lock, or raise the login's statement_timeout",
    "28": "correct the login or the database's name in SAGA_DATABASE_URL",
    "3D": "correct the login or the database's name in SAGA_DATABASE_URL",
    "08P01": "correct the login or the database in SAGA_DATABASE_URL, or in the pooler's settings; its log shows which",
    "no such table": _TABLE_GONE,
    "no such column": _OTHER_VERSION,
    "has no column": _OTHER_VERSION,
    "attempt to write a readonly database": "give the service write permission on the file and its directory",
    "disk is full": "free space on the database's disk",
    "database is locked": "end the process that holds the file's write lock",
}


def is_contention(error: BaseException) -> bool:
    """Whether PostgreSQL ended the transaction in favour of another one: a deadlock, or a failed serialization."""
    return isinstance(error, DBAPIError) and _sqlstate(error) in ("40P01", "40001")


def is_outage(error: BaseException) -> bool:
    """Whether an outage may have caused this error, rather than a wrong statement."""
    if isinstance(error, DBAPIError):
        # InternalError, too: the driver raises it for a connection that dies while it is returned to the pool.
        is_named_so = isinstance(error, OperationalError | InterfaceError | InternalError)
        return breaks_off(error) or is_named_so or _sqlstate(error).startswith((*_UNFIT, *_CLOSED, *_REFUSED))
    # SQLAlchemy raises its own TimeoutError when all connections of the pool are in use.
    return isinstance(error, DatabaseUnavailableError | OSError | TimeoutError | exc.TimeoutError)


def is_refusal(error: BaseException) -> bool:
    """Whether the database refuses the login: the service waits for it, but an operator must act."""
    return isinstance(error, DBAPIError) and _sqlstate(error).startswith(_REFUSED)


def is_unusable(error: BaseException) -> bool:
    """Whether SQLite's file needs an operator: it is no database, or the service may not read or write it."""
    return _name(error).startswith(_UNUSABLE)


def is_misconfigured(error: BaseException) -> bool:
    """Whether PostgreSQL's driver refuses to connect: a parameter is invalid, or the server's identity unproven."""
    if tls_fault(error):
        return True
    cause = getattr(getattr(error, "orig", None), "__cause__", None)
    return type(cause).__name__ == "ClientConfigurationError"  # by name: SQLite's services load no other driver


def is_wrong_statement(error: BaseException) -> bool:
    """Whether the statement itself is wrong: it can't be parsed, or names what does not exist; time mends neither."""
    return isinstance(error, DBAPIError) and (_name(error) == "SQLITE_ERROR" or _sqlstate(error).startswith("42"))


def missing_table(error: DBAPIError) -> str | None:
    """Return the table that a statement names and that does not exist; None for another error."""
    text = str(error.orig)
    if not (_sqlstate(error) == "42P01" or (_name(error) == "SQLITE_ERROR" and "no such table" in text)):
        return None
    found = _MISSING_TABLE.search(text)
    return (found["sqlite"] or found["postgres"]) if found else "of its statement"


def breaks_off(error: BaseException) -> bool:
    """Whether a statement failed because its connection ended."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _sqlstate(error).startswith(_GONE)
    return isinstance(error, DatabaseUnavailableError)


def is_unfit(error: BaseException) -> bool:
    """Whether a statement failed because the server lacked disk space, memory, or permission to write."""
    return isinstance(error, DBAPIError) and (
        _sqlstate(error).startswith(_UNFIT) or _name(error).startswith(_UNWRITABLE)
    )


def may_pass(error: BaseException) -> bool:
    """Whether the same statement may succeed on a retry; a violated key stays violated."""
    return is_outage(error) or (isinstance(error, DBAPIError) and not is_of_values(error))


@contextmanager
def recording() -> Iterator[None]:
    """Distinguish errors of the toolkit's own statements from a step's.

    An error about a value that can't be stored, such as a step's event, remains the step's; so does a lost connection.

    Raises:
        UnrecordedError: a statement failed.
    """
    try:
        yield
    except DBAPIError as error:
        if is_contention(error) or is_of_data(error) or breaks_off(error):
            raise
        raise UnrecordedError(f"the database did not take an entry: {describe_fault(error)}") from error


def is_of_data(error: BaseException) -> bool:
    """Whether a value can't be stored as it is, for example because it is too long or no text."""
    return isinstance(error, DataError) or (isinstance(error, DBAPIError) and _sqlstate(error).startswith(_OF_DATA))


def is_of_values(error: BaseException) -> bool:
    """Whether the database rejected the written values: by a key, a constraint, a trigger, or as invalid."""
    return isinstance(error, IntegrityError | DataError) or (
        isinstance(error, DBAPIError) and _sqlstate(error).startswith(_OF_VALUES)
    )


def cure_of(error: BaseException) -> str:
    """Return how to repair an error of the toolkit's own statements."""
    code, text = (_sqlstate(error), str(error.orig)) if isinstance(error, DBAPIError) else ("", str(error))
    code = "23" if isinstance(error, IntegrityError) else code  # SQLite has no codes, and a trigger's text is arbitrary
    for sign, cure in _CURES.items():
        if code.startswith(sign) or (" " in sign and sign in text):
            return cure
    return "check that the database answers at SAGA_DATABASE_URL, and read its log"


def complain(summary: str, error: BaseException, **facts: str | None) -> None:
    """Log an error of the toolkit's own statements; unless the connection was lost, with how to repair it."""
    if breaks_off(error) or isinstance(error, OSError | TimeoutError):
        log.warning(summary, error=describe_fault(error), **facts)
    else:
        log.error(summary, error=describe_fault(error), cure=cure_of(error), **facts)


def describe_fault(error: BaseException) -> str:
    """Return an error as one line: the driver's text, without the statement."""
    if fault := tls_fault(error):
        return fault
    return describe(error.orig if isinstance(error, DBAPIError) and error.orig else error)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _name(error: BaseException) -> str:
    name: str = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return name
