"""`saga log`: the saga log of one service."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import UsageError
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_rows, with_types
from toolkit.cli.service_locations import opened
from toolkit.errors import UnreachableError

if TYPE_CHECKING:
    from toolkit.client.service_client import Entries

#: The columns of a table that is piped; a terminal has no room for them, and programs get every field.
_COLUMNS = ("at", "saga_id", "step", "from_state", "to_state", "saga_state", "event_type", "emitted_type", "error")


def log(
    of: Annotated[str, typer.Argument(metavar="SERVICE", help="Whose log.")],
    saga: Annotated[str | None, typer.Option(metavar="ID", help="The entries of this saga only.")] = None,
    saga_type: Annotated[
        str | None, typer.Option("--type", metavar="NAME", help="Of these, those of a saga of this type only.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The newest so many.")] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Print log entries of one service, the oldest first.

    On a terminal saga by saga.
    """
    from toolkit.cli.timelines import print_by_saga

    entries = run_async(_read(of, saga, saga_type, limit, service))
    if output is Format.TABLE and entries and sys.stdout.isatty():
        print_by_saga(entries)
    else:
        print_rows(entries, output, columns=with_types(_COLUMNS, entries))


async def _read(name: str, saga: str | None, saga_type: str | None, limit: int, service: list[str] | None) -> Entries:
    from toolkit.client.fan_out import query_all

    if saga_type is not None and saga is None:
        raise UsageError("--type is allowed with --saga ID only: it narrows the sagas of one id")
    async with opened(service) as clients:
        chosen = [client for client in clients if client.service == name]
        if not chosen:
            known = ", ".join(client.service for client in clients)
            raise UsageError(f"there is no service {name!r} to read; there are: {known}")
        answers = await query_all(chosen, lambda client: client.entries(saga, limit, saga_type=saga_type))
    if name in answers.unreachable:
        raise UnreachableError(f"{name} is unreachable: {answers.unreachable[name]}")
    return answers.by_service[name]
