"""`saga audit`: who changed what by hand in a service, when and why."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from toolkit.cli.locating import ServicesOption, opened
from toolkit.cli.operating import pick
from toolkit.cli.output import Format, FormatOption, print_rows
from toolkit.sources import Rows

_COLUMNS = ("at", "actor", "verb", "saga_id", "subject", "reason")


def audit(
    of: Annotated[str, typer.Argument(metavar="SERVICE", help="Whose audit.")],
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The newest so many.")] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List what was changed by hand in a service.

    Who, when, what and why, the newest first. Ends with 3 where the service can't be asked.
    """
    print_rows(asyncio.run(_read(of, limit, service)), output, columns=_COLUMNS)


async def _read(name: str, limit: int, service: list[str] | None) -> Rows:
    async with opened(service) as known:
        return await pick(name, known).audit(limit=limit)
