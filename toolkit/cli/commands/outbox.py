"""`saga outbox`: what has not left a service yet, its own retries among it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.interrupts import run_async
from toolkit.cli.operator import pick
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_rows, with_types
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.client.service_client import Rows

_COLUMNS = ("due_at", "event_type", "saga_id", "destination", "attempt", "tries", "event_id")


def outbox(
    of: Annotated[str, typer.Argument(metavar="SERVICE", help="Whose outbox.")],
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The oldest so many.")] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List what waits to be sent.

    Events for the exchange, and retries for the service's own queue. Ends with 3 where the service can't be asked.
    """
    rows = run_async(_read(of, limit, service))
    print_rows(rows, output, columns=with_types(_COLUMNS, rows))


async def _read(name: str, limit: int, service: list[str] | None) -> Rows:
    async with opened(service) as known:
        return await pick(name, known).outbox(limit=limit)
