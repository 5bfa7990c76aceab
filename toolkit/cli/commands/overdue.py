"""`saga overdue`: the steps whose sagas should have ended long ago, in all services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_rows, with_types
from toolkit.cli.service_locations import opened
from toolkit.errors import UnreachableError

if TYPE_CHECKING:
    from toolkit.client.service_client import Rows, ServiceClient

_COLUMNS = ("since", "service", "saga_id", "step", "state", "saga_state", "nudges", "aborted")


def overdue(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="So many of each service.")] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List overdue steps, the longest waiting first.

    With how often they were nudged. Ends with 3 where a service can't be asked.
    """
    rows, unreachable = run_async(_read(limit, service))
    print_rows(sorted(rows, key=lambda row: row["since"]), output, columns=with_types(_COLUMNS, rows))
    for name, reason in unreachable.items():
        complain(f"warning: {name} is unreachable, so what is overdue there is missing here: {reason}")
    leave(ExitCode.AWAY if unreachable else ExitCode.FINE)


async def _read(limit: int, service: list[str] | None) -> tuple[Rows, Mapping[str, str]]:
    import asyncio

    rows: Rows = []
    unreachable: dict[str, str] = {}
    async with opened(service) as known:
        for each, answer in zip(known, await asyncio.gather(*(_ask(each, limit) for each in known)), strict=True):
            if isinstance(answer, UnreachableError):
                unreachable[each.service] = str(answer)
            else:
                rows += [{"service": each.service} | row for row in answer]
    return rows, unreachable


async def _ask(client: ServiceClient, limit: int) -> Rows | UnreachableError:
    try:
        return await client.overdue(limit=limit)
    except UnreachableError as error:
        return error
