"""`saga topology`: what services have on the broker, and what their logins need to be allowed there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_json, print_rows
from toolkit.cli.service_discovery import discover, package_name
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings
    from toolkit.declaration.contract import Contract


def topology(
    permissions: Annotated[
        bool, typer.Option("--permissions", help="Show what each login needs to be allowed.")
    ] = False,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the bindings of all queues, or the rights of all logins.

    Read from the declarations below the current directory; where services are named by `--service` or in SAGA_SERVICES,
    from these. With --permissions, `-o json` is a document for `rabbitmqctl import_definitions`; in the place of each
    password it has `@LOGIN_PASSWORD@`. Ends with 3 where a service can't be asked.
    """
    from toolkit.configuration.environment import secret_variable
    from toolkit.configuration.settings import load_settings
    from toolkit.declaration.contract import contract_of
    from toolkit.messaging.rights import as_definitions, as_rows, rights_of

    settings = load_settings()
    is_named = bool(service or secret_variable("SAGA_SERVICES"))
    found = [] if is_named else discover(package_name()).values()
    declared = [contract_of(each, settings) for each in found]
    contracts = run_async(_read(service)) if is_named else declared
    if not permissions:
        print_rows(_bindings(contracts, settings), output, columns=("queue", "exchange", "key"))
        return
    rights = rights_of(contracts, settings.exchange, settings.logins)
    if output is Format.JSON:
        print_json(as_definitions(rights, settings.exchange, vhost=settings.vhost), output)
    else:
        print_rows(as_rows(rights), output, columns=("login", "object", "key", "right"))


async def _read(service: list[str] | None) -> list[Contract]:
    async with opened(service) as known:
        return [await each.contract() for each in known]


def _bindings(contracts: list[Contract], settings: Settings) -> list[dict[str, str]]:
    from toolkit.configuration.settings import queue_name
    from toolkit.declaration.events import routing_key
    from toolkit.messaging.envelope import CONTROL_EVENTS

    exchange, rows = settings.exchange, []
    for contract in contracts:
        queue = queue_name(settings, contract.service)
        keys = [*contract.bound_keys(), *map(routing_key, CONTROL_EVENTS)]
        rows += [{"queue": queue, "exchange": exchange, "key": key} for key in keys]
        rows.append({"queue": queue, "exchange": queue, "key": ""})
        rows.append({"queue": f"{queue}.dead", "exchange": f"{exchange}.dead", "key": queue})
    return rows
