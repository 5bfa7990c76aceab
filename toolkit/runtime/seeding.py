"""Runs a service's seed; a fault of the seed is not taken for an outage, which the start would wait for."""

from __future__ import annotations

from collections.abc import Callable
from traceback import extract_tb
from typing import Any

from sqlalchemy.exc import DBAPIError

from toolkit.declaration.service import Service
from toolkit.errors import DeclarationError, SeedError
from toolkit.foreign_code.containment import contained
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import (
    describe_fault,
    is_misconfigured,
    is_unusable,
    is_wrong_statement,
    missing_table,
)


async def run_seed(service: Service, database: Database, *, is_worth_waiting: Callable[[BaseException], bool]) -> None:
    """Run the service's seed, if it has one, in a transaction of its own.

    Raises:
        DeclarationError: it uses a table that does not exist.
        SeedError: it failed for another reason than one that is worth waiting for, which is raised as it is.
    """
    if service.seed is None:
        return
    with contained(f"the seed of {service.name}"):
        try:
            async with database.transaction() as session:
                await service.seed(session)
        except Exception as error:
            name = getattr(service.seed, "__name__", repr(service.seed))
            if isinstance(error, DBAPIError) and (table := missing_table(error)):
                cure = "Pass Service(tables=…), the MetaData with this table: the service makes its tables at the start"
                fault = f"its seed {name} uses the table {table}, which does not exist"
                raise DeclarationError(f"Service {service.name!r}", fault, cure) from error
            if (is_worth_waiting(error) and not _is_of_seed(error)) or is_unusable(error) or is_misconfigured(error):
                raise  # the start waits, or names the setting
            raise SeedError(
                f"the seed {name} of the service {service.name} failed{_place(error, service.seed)}: "
                f"{describe_fault(error)}; correct the seed, which runs at each start"
            ) from error


def _is_of_seed(error: Exception) -> bool:
    """Whether the seed's own code is at fault, though the error is of a class that an outage has, too."""
    is_of_file = isinstance(error, OSError) and error.filename is not None
    return is_of_file or is_wrong_statement(error)


def _place(error: Exception, seed: Any) -> str:
    """Return the line of the seed's module that failed; the command line shows no traceback."""
    code = getattr(seed, "__code__", None)
    frames = [each for each in extract_tb(error.__traceback__) if code and each.filename == code.co_filename]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
