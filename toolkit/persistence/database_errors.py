"""What an error of the database says: who is at fault, whether waiting helps, and what else does.

Only the error's class and code are read here. Whether the database is away is never read from an error: that is asked
by another connection, in `availability`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy import exc
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError

from toolkit.errors import DatabaseUnavailableError, UnrecordedError, describe
from toolkit.persistence.postgres_tls import tls_fault

log = structlog.get_logger("toolkit")

#: What PostgreSQL says, as SQLSTATEs, when it goes away: connection lost, shutting down, starting up. And when it
#: can't serve: out of resources, broken, only a replica now. And when it lets nobody in: closed. To SQLAlchemy these
#: are errors like any other.
_GONE, _UNFIT, _CLOSED = ("08", "57P", "25P03"), ("53", "58", "25006"), ("55000",)
#: And when it doesn't let us in: a wrong login, an unknown database, a pooler that knows neither. Somebody may mend it.
_REFUSED = ("28", "3D", "08P01")
#: And of the values: they can't be stored as they are; or they break a constraint, or displease a trigger.
_OF_DATA, _OF_VALUES = ("22", "54"), ("22", "23", "54", "P0")
#: What SQLite says of a file that is no database of ours, or not ours to write.
_UNUSABLE = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_PERM", "SQLITE_AUTH")
#: What SQLite says when its file can't be written now.
_UNWRITABLE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR")
_TABLE_GONE = (
    "restore the table; where nothing of it is needed any more, start the service again, and it makes the table"
)
_OTHER_VERSION = "add the column that is missing: the table was made by another version"
_FOREIGN_RULE = "take the constraint or the trigger that somebody added off the toolkit's table"
#: What mends an error of the toolkit's own statements, by how PostgreSQL's code begins or what SQLite's text holds.
_CURES = {
    "42501": "grant the service's login SELECT, INSERT, UPDATE and DELETE on the toolkit's tables, and USAGE on the "
    "sequence saga_log_id_seq",
    "42P01": _TABLE_GONE,
    "42703": _OTHER_VERSION,
    "23": _FOREIGN_RULE,
    "P0001": _FOREIGN_RULE,
    "25006": "name the primary in SAGA_DATABASE_URL, or set default_transaction_read_only to off",
    "53100": "give the database's disk room",
    "53300": "raise max_connections, or run fewer replicas",
    "55P03": "end the transaction that holds the lock",
    "57014": "end the transaction that holds the lock, or raise the login's statement_timeout",
    "28": "mend the login or the database's name in SAGA_DATABASE_URL",
    "3D": "mend the login or the database's name in SAGA_DATABASE_URL",
    "08P01": "mend the login or the database in the pooler's own settings, or in SAGA_DATABASE_URL; its log says which",
    "no such table": _TABLE_GONE,
    "no such column": _OTHER_VERSION,
    "has no column": _OTHER_VERSION,
    "attempt to write a readonly database": "let the service write the file and its directory",
    "disk is full": "give the database's disk room",
    "database is locked": "end the process that holds the file's write lock",
}


def is_contention(error: BaseException) -> bool:
    """Whether PostgreSQL ended the transaction for another one's sake: a deadlock, or a failed serialization."""
    return isinstance(error, DBAPIError) and _sqlstate(error) in ("40P01", "40001")


def is_outage(error: BaseException) -> bool:
    """Whether this error may be that of a database that is away, and need not be that of a wrong statement."""
    if isinstance(error, DBAPIError):
        # InternalError, too: the driver's name for a connection that died while it was being given back.
        is_named_so = isinstance(error, OperationalError | InterfaceError | InternalError)
        return breaks_off(error) or is_named_so or _sqlstate(error).startswith((*_UNFIT, *_CLOSED, *_REFUSED))
    # SQLAlchemy's own TimeoutError: all connections of the pool are in use.
    return isinstance(error, DatabaseUnavailableError | OSError | TimeoutError | exc.TimeoutError)


def is_refusal(error: BaseException) -> bool:
    """Whether the database is there, and doesn't let us in: it is waited for, but somebody must look."""
    return isinstance(error, DBAPIError) and _sqlstate(error).startswith(_REFUSED)


def is_unusable(error: BaseException) -> bool:
    """Whether SQLite says of its file what no waiting mends: it is none, or nobody may read it or write it."""
    return _name(error).startswith(_UNUSABLE)


def is_misconfigured(error: BaseException) -> bool:
    """Whether PostgreSQL's driver does not let us try: a parameter is none, or the server does not prove who it is."""
    if tls_fault(error):
        return True
    cause = getattr(getattr(error, "orig", None), "__cause__", None)
    return type(cause).__name__ == "ClientConfigurationError"  # by name: SQLite's services load no other driver


def breaks_off(error: BaseException) -> bool:
    """Whether a statement failed because its connection ended under it."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _sqlstate(error).startswith(_GONE)
    return isinstance(error, DatabaseUnavailableError)


def is_unfit(error: BaseException) -> bool:
    """Whether a statement failed because the server had no room, no memory, or no right to write for it."""
    return isinstance(error, DBAPIError) and (
        _sqlstate(error).startswith(_UNFIT) or _name(error).startswith(_UNWRITABLE)
    )


def may_pass(error: BaseException) -> bool:
    """Whether the same statement may succeed when it is executed again; a key that is in the way stays there."""
    return is_outage(error) or (isinstance(error, DBAPIError) and not is_of_values(error))


@contextmanager
def recording() -> Iterator[None]:
    """Tell an error of the toolkit's own statements from one of a step's.

    What can't be written as it is, a step's event say, remains the step's; so does a connection that is broken.

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
    """Whether a value can't be stored as it is: it is too long, say, or no text."""
    return isinstance(error, DataError) or (isinstance(error, DBAPIError) and _sqlstate(error).startswith(_OF_DATA))


def is_of_values(error: BaseException) -> bool:
    """Whether the database took exception to what was to be written: a key, a constraint, a trigger, a bad value."""
    return isinstance(error, IntegrityError | DataError) or (
        isinstance(error, DBAPIError) and _sqlstate(error).startswith(_OF_VALUES)
    )


def cure_of(error: BaseException) -> str:
    """Return what mends an error of a statement of the toolkit's own."""
    code, told = (_sqlstate(error), str(error.orig)) if isinstance(error, DBAPIError) else ("", str(error))
    code = "23" if isinstance(error, IntegrityError) else code  # SQLite has no codes, and a trigger says what it likes
    for sign, cure in _CURES.items():
        if code.startswith(sign) or (" " in sign and sign in told):
            return cure
    return "see that the database answers at SAGA_DATABASE_URL, and what its own log says"


def complain(summary: str, error: BaseException, **facts: str | None) -> None:
    """Log an error of the toolkit's own statements: where the database is there, with what mends it."""
    if breaks_off(error) or isinstance(error, OSError | TimeoutError):
        log.warning(summary, error=describe_fault(error), **facts)
    else:
        log.error(summary, error=describe_fault(error), cure=cure_of(error), **facts)


def describe_fault(error: BaseException) -> str:
    """Return an error as one line: that of the driver alone, without the whole statement."""
    if told := tls_fault(error):
        return told
    return describe(error.orig if isinstance(error, DBAPIError) and error.orig else error)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _name(error: BaseException) -> str:
    name: str = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return name
