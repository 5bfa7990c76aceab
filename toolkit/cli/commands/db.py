"""`saga db`: the version of the toolkit's tables in each service's database, and the way to this release's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.database_urls import databases_of
from toolkit.cli.exit_codes import ExitCode, VerbGroup, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_json, printing
from toolkit.errors import SettingsError, UnreachableError
from toolkit.protocol.rows import Row
from toolkit.urls import shown_url

if TYPE_CHECKING:
    from toolkit.persistence.database import Database

db = typer.Typer(
    cls=VerbGroup,
    help="Show and upgrade the version of the toolkit's tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_UPGRADED = ("service", "before", "now")
_CURRENT = ("service", "version", "needed", "state")

#: PostgreSQL's codes for a login that may not change the tables, or not create them in any schema.
_NO_RIGHT = ("42501", "3F000")
_RIGHTS = "name a login in the URL that owns the tables and may create others"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradedTables(Row):
    """One database: the version of its tables before and now, `before` null where there was none."""

    service: str
    database: str
    before: str | None
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentTables(Row):
    """The version of a database's tables, null where none is recorded, beside the one that this release needs."""

    service: str
    database: str
    version: str | None
    needed: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeSql(Row):
    """The statements of an upgrade; `before` is null where they create all tables."""

    service: str
    before: str | None
    now: str
    sql: str


ServicesArgument = Annotated[list[str], typer.Argument(metavar="SERVICE...", help="The services.")]


@db.command("upgrade")
def upgrade(services: ServicesArgument, service: ServicesOption = None, output: FormatOption = Format.TABLE) -> None:
    """Bring the toolkit's tables to this release; stop the services' processes before.

    Creates them where there are none. Each database is one transaction.
    """
    rows: list[UpgradedTables] = []
    with printing(rows, output, columns=_UPGRADED):
        run_async(_upgrade(databases_of(services, service), rows))


@db.command("current")
def current(services: ServicesArgument, service: ServicesOption = None, output: FormatOption = Format.TABLE) -> None:
    """Show the version of the toolkit's tables, and the one that this release needs.

    Ends with 1 where the two differ.
    """
    rows: list[CurrentTables] = []
    with printing(rows, output, columns=_CURRENT):
        run_async(_read(databases_of(services, service), rows))
    if any(each.version != each.needed for each in rows):
        leave(ExitCode.PROBLEM)


@db.command("sql")
def sql(
    services: ServicesArgument,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="VERSION", help="From this version; else from a database without the tables."),
    ] = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Print the SQL of an upgrade, for an administrator; queries no database."""
    from toolkit.persistence.migrations.revisions import sql_of
    from toolkit.persistence.schema_version import HEAD

    rows = [
        UpgradeSql(service=name, before=start, now=HEAD, sql=sql_of(url, start=start))
        for name, url in databases_of(services, service).items()
    ]
    if output is not Format.TABLE:
        print_json(rows, output)
        return
    for row in rows:
        typer.echo(f"-- {row.service}: {row.before or 'no tables'} to {row.now}\n{row.sql}")


async def _upgrade(urls: Mapping[str, str], rows: list[UpgradedTables]) -> None:
    from toolkit.persistence.migrations import revisions
    from toolkit.persistence.schema_version import HEAD

    for name, url in urls.items():
        async with _opened(url) as database:
            found = await revisions.upgrade(database, service=name)
        rows.append(UpgradedTables(service=name, database=shown_url(url), before=found.number, now=HEAD))


async def _read(urls: Mapping[str, str], rows: list[CurrentTables]) -> None:
    from toolkit.persistence.migrations import revisions
    from toolkit.persistence.schema_version import HEAD

    for name, url in urls.items():
        async with _opened(url) as database:
            found = await revisions.current(database)
        rows.append(
            CurrentTables(
                service=name, database=shown_url(url), version=found.number, needed=HEAD, state=found.state.value
            )
        )


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    """Open a database; its errors end the command with their cures."""
    from sqlalchemy.exc import DBAPIError

    from toolkit.persistence.database import Database
    from toolkit.persistence.database_errors import cure_of, describe_fault, is_outage

    database = Database(url)
    try:
        yield database
    except (DBAPIError, OSError) as error:
        if is_outage(error):
            raise UnreachableError(f"{shown_url(url)} can't be reached: {describe_fault(error)}") from error
        cure = _RIGHTS if getattr(getattr(error, "orig", None), "sqlstate", "") in _NO_RIGHT else cure_of(error)
        raise SettingsError(
            f"the tables in {shown_url(url)} stay as they are: {describe_fault(error)}; {cure}"
        ) from error
    finally:
        await database.close()
