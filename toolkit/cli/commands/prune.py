"""`saga prune`: delete old rows from the services' databases, batch by batch, while the services work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import UsageError
from toolkit.cli.interrupts import run_async
from toolkit.cli.operator import operator, span
from toolkit.cli.options import Format, FormatOption, ReasonOption, ServicesOption
from toolkit.cli.output import printing
from toolkit.cli.progress_bars import progress
from toolkit.cli.service_locations import opened
from toolkit.protocol.rows import Row

if TYPE_CHECKING:
    from toolkit.client.service_client import ServiceClient
    from toolkit.persistence.audit_log import Operator
    from toolkit.runtime.pruner import Pruned

_COLUMNS = ("service", "sagas", "dead_letters", "audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedRows(Row):
    """How many rows were pruned in a service."""

    service: str
    sagas: int = 0
    dead_letters: int = 0
    audit: int = 0

    def plus(self, pruned: Pruned) -> PrunedRows:
        """Return the counts after one more batch."""
        return replace(
            self,
            sagas=self.sagas + pruned.sagas,
            dead_letters=self.dead_letters + pruned.dead_letters,
            audit=self.audit + pruned.audit,
        )


def prune(
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help="How old is old, for example 30d.")],
    reason: ReasonOption,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Delete old entries of ended sagas, and old dead letters.

    The audit's, too; nothing of an open saga.
    """
    rows: list[PrunedRows] = []
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


async def _prune(age: timedelta, by: Operator, service: list[str] | None, rows: list[PrunedRows]) -> None:
    async with opened(service) as known:
        for client in known:
            await _prune_one(client, age, by, rows)


async def _prune_one(client: ServiceClient, age: timedelta, by: Operator, rows: list[PrunedRows]) -> None:
    with progress() as bar:
        task = bar.add_task(f"sagas pruned in {client.service}", total=None)
        pruned = await client.prune(age, by)  # a service that refuses has no row
        rows.append(PrunedRows(service=client.service).plus(pruned))
        bar.advance(task, pruned.sagas)
        while not pruned.is_all:
            pruned = await client.prune(age, by)
            rows[-1] = rows[-1].plus(pruned)
            bar.advance(task, pruned.sagas)
