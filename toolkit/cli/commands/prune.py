"""`saga prune`: delete old rows from the services' databases, batch by batch, while the services work."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.exit_codes import UsageError
from toolkit.cli.interrupts import run_async
from toolkit.cli.operator import operator, span
from toolkit.cli.options import Format, FormatOption, ReasonOption, ServicesOption
from toolkit.cli.output import printing
from toolkit.cli.progress_bars import progress
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.client.service_client import Rows, ServiceClient
    from toolkit.persistence.audit_log import Operator

_COLUMNS = ("service", "sagas", "dead_letters", "audit")


def prune(
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help="How old is old, for example 30d.")],
    reason: ReasonOption,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Delete old entries of ended sagas, and old dead letters.

    The audit's, too; nothing of an open saga.
    """
    rows: Rows = []
    with printing(rows, output, columns=_COLUMNS):
        run_async(_prune(_allowed(older_than), operator(reason), service, rows))


def _allowed(older_than: str) -> timedelta:
    from toolkit.configuration.settings import LONGEST_RETENTION, SHORTEST_RETENTION

    age = span(older_than, "--older-than")
    if not SHORTEST_RETENTION <= age <= LONGEST_RETENTION:
        raise UsageError(
            f"--older-than {older_than} is not allowed: the log is the fence against events that come again, so it is "
            f"kept for {SHORTEST_RETENTION.days} day at least, and {LONGEST_RETENTION.days} days at most"
        )
    return age


async def _prune(age: timedelta, by: Operator, service: list[str] | None, rows: Rows) -> None:
    async with opened(service) as known:
        for client in known:
            row = {"service": client.service, "sagas": 0, "dead_letters": 0, "audit": 0}
            await _prune_one(client, age, by, row, rows)


async def _prune_one(client: ServiceClient, age: timedelta, by: Operator, row: dict[str, Any], rows: Rows) -> None:
    with progress() as bar:
        task = bar.add_task(f"sagas pruned in {client.service}", total=None)
        is_all = False
        while not is_all:
            pruned = await client.prune(age, by)
            if row not in rows:  # a service that refuses has no row
                rows.append(row)
            counts = {"sagas": pruned.sagas, "dead_letters": pruned.dead_letters, "audit": pruned.audit}
            row |= {name: row[name] + count for name, count in counts.items()}
            bar.advance(task, pruned.sagas)
            is_all = pruned.is_all
