"""`saga asyncapi`: the events that a service consumes and publishes, as an AsyncAPI document."""

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


def asyncapi(
    of: Annotated[str, typer.Argument(metavar="SERVICE", help="Whose events.")], service: ServicesOption = None
) -> None:
    """Print a service's events as AsyncAPI 3.1.

    In JSON: the events that it consumes and publishes, with their schemas. It is read from the declarations below the
    current directory; where services are named by `--service` or in SAGA_SERVICES, from these. Ends with 3 where the
    service can't be asked.
    """
    from toolkit.configuration.environment import secret_variable
    from toolkit.configuration.settings import load_settings, queue_name
    from toolkit.declaration.contract import Contract
    from toolkit.json_output import as_json
    from toolkit.messaging.asyncapi import asyncapi as document_of

    settings = load_settings()
    is_named = bool(service or secret_variable("SAGA_SERVICES"))
    contract = run_async(_read(of, service)) if is_named else Contract.of(find_service(of))
    document = document_of(contract, exchange=settings.exchange, queue=queue_name(settings, contract.service))
    typer.echo(as_json(document, indent=2).encode())


async def _read(name: str, service: list[str] | None) -> Contract:
    async with opened(service) as known:
        return await pick(name, known).contract()
