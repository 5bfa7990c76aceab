"""`saga audit`: the changes that operators made in a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.interrupts import run_async
from toolkit.cli.operator import pick
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_rows, with_types
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.persistence.audit_log import AuditEntry

_COLUMNS = ("at", "actor", "verb", "saga_id", "subject", "reason")


def audit(
    of: Annotated[str, typer.Argument(metavar="SERVICE", help="Whose audit.")],
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The newest so many.")] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List what operators changed in a service.

    Who, when, what and why, the newest first. Ends with 3 where the service can't be asked.
    """
    entries = run_async(_read(of, limit, service))
    print_rows(entries, output, columns=with_types(_COLUMNS, entries))


async def _read(name: str, limit: int, service: list[str] | None) -> list[AuditEntry]:
    async with opened(service) as known:
        return await pick(name, known).audit(limit=limit)
