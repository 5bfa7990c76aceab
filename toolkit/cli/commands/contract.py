"""`saga contract`: what a service consumes and publishes, as data to be kept and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.interrupts import run_async
from toolkit.cli.operator import pick
from toolkit.cli.options import ServicesOption
from toolkit.cli.service_discovery import find_service
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.declaration.contract import Contract


def contract(
    of: Annotated[str, typer.Argument(metavar="SERVICE", help="Whose contract.")], service: ServicesOption = None
) -> None:
    """Print a service's contract.

    In JSON, as the running service answers it at `/contract`: its steps, its sagas, and its events with their schemas.
    It is read from the declarations below the current directory; where services are named by `--service` or in
    SAGA_SERVICES, from these. Keep it in a file, and have `saga check` compare releases by it. Ends with 3 where the
    service can't be asked.
    """
    from toolkit.configuration.environment import secret_variable
    from toolkit.configuration.settings import load_settings
    from toolkit.declaration.contract import contract_of
    from toolkit.json_output import as_json

    is_named = bool(service or secret_variable("SAGA_SERVICES"))
    found = run_async(_read(of, service)) if is_named else contract_of(find_service(of), load_settings())
    typer.echo(as_json(found, indent=2).encode())


async def _read(name: str, service: list[str] | None) -> Contract:
    async with opened(service) as known:
        return await pick(name, known).contract()
