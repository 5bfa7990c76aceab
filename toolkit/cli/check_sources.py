"""What `saga check` reads: declarations, contracts in files, and contracts of running services."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.exit_codes import UsageError, complain
from toolkit.cli.interrupts import run_async
from toolkit.cli.service_discovery import discover, find_service, package_name, passed_over
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.declaration.contract import Contract
    from toolkit.declaration.service import Service

_URL = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Source:
    """A service that is declared here, or a contract with the file that holds it, if one does."""

    declared: Service | Contract
    path: Path | None = None

    @property
    def name(self) -> str:
        """The service's name."""
        from toolkit.declaration.contract import Contract

        return self.declared.service if isinstance(self.declared, Contract) else self.declared.name


def sources_of(declared: Iterable[str], named: list[str] | None) -> list[Source]:
    """Return the services that are declared here, and the contracts of those that run elsewhere."""
    from toolkit.configuration.environment import secret_variable

    declared = list(declared)
    found = [each for one in declared for each in _declared(one)]
    if named or (secret_variable("SAGA_SERVICES") and not declared):
        found += map(Source, run_async(_read(named)))
    elif not declared:
        found += map(Source, discover(package_name()).values())
        for sentence in passed_over(package_name()):
            complain(f"warning: {sentence}")
    return found


def contracts_of(sources: Iterable[Source]) -> Iterator[Contract]:
    """Yield the services' contracts, with the settings that a service started here would have."""
    from toolkit.configuration.settings import load_settings
    from toolkit.declaration.contract import Contract, contract_of

    settings = load_settings()
    for each in sources:
        yield each.declared if isinstance(each.declared, Contract) else contract_of(each.declared, settings)


def contracts_against(places: Sequence[str]) -> list[Contract]:
    """Return the contracts that are compared with: of a directory, of a file, or of a running service.

    Raises:
        UsageError: a place is none of these, or two contracts are of one service.
        UnreachableError: a service does not answer.
    """
    found = [each for place in places for each in _against(place)]
    check_distinct(found, "--against")
    return found


def check_distinct(contracts: Iterable[Contract], what: str) -> None:
    """Check that each service has one contract.

    Raises:
        UsageError: one has two.
    """
    names = [each.service for each in contracts]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{what} names two contracts of {doubled[0]}: name one of each service")


def _declared(reference: str) -> Iterator[Source]:
    if reference.endswith(".json"):
        yield from (Source(each, Path(reference)) for each in _contracts_in(Path(reference)))
    else:
        yield Source(find_service(reference))


def _against(place: str) -> list[Contract]:
    url = place.partition("=")[2]
    if place.startswith(_URL):
        return [run_async(_ask(place))]
    if url.startswith(_URL):
        return run_async(_read([place]))
    path = Path(place)
    if not path.is_dir():
        if path.is_file():
            return _contracts_in(path)
        raise UsageError(
            f"--against {place!r} is not there: name a directory or a file of contracts, or a service's URL"
        )
    files = sorted(path.glob("*.json"))
    if not files:
        raise UsageError(f"{place} holds no contracts: write each by `saga contract SERVICE > {path}/SERVICE.json`")
    return [contract for each in files for contract in _contracts_in(each)]


def _contracts_in(path: Path) -> list[Contract]:
    """Return the contracts in a file: one, or a list of them, as `/contract` answers them."""
    from pydantic import ValidationError

    from toolkit.declaration.contract import Contract

    try:
        content = json.loads(path.read_text())
        return [Contract.model_validate(each) for each in (content if isinstance(content, list) else [content])]
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except (ValidationError, ValueError) as error:
        raise UsageError(f"{path} holds no contract, as a service answers it at /contract") from error


async def _read(named: list[str] | None) -> list[Contract]:
    async with opened(named) as known:
        return [await each.contract() for each in known]


async def _ask(url: str) -> Contract:
    from toolkit.client.contract_client import ContractClient
    from toolkit.configuration.server_urls import has_sound_address
    from toolkit.configuration.settings import load_settings

    settings = load_settings()
    try:
        address = has_sound_address(url)
        client = ContractClient(address, token=settings.api_token, read_token=settings.api_read_token)
    except ValueError as error:
        raise UsageError(f"--against {url!r} is no URL: {error}") from error
    try:
        return await client.contract()
    finally:
        await client.close()
