"""The services that take an answer: the contracts show them, so that a client needs none of their code."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.client.fan_out import query_all
from toolkit.client.service_client import ServiceClient
from toolkit.declaration.contract import Contract
from toolkit.errors import InvalidAnswerError, UnreachableError


async def services_taking(event: str, clients: Sequence[ServiceClient]) -> list[tuple[ServiceClient, str]]:
    """Return the services with a step that takes the answer of this name, each with the field of the saga's id.

    Raises:
        InvalidAnswerError: no service takes it; the text names the answers that they take.
        UnreachableError: no reachable service takes it, and others are not reachable.
    """
    found = await query_all(clients, lambda each: each.contract())
    taking = []
    for client in clients:
        contract = found.by_service.get(client.service)
        if contract and (fields := id_fields_of(event, contract)):
            taking.append((client, fields[0]))
    if not taking and found.unreachable:
        raise UnreachableError("; ".join(f"{name} is unreachable: {why}" for name, why in found.unreachable.items()))
    if not taking:
        known = sorted({name for each in found.by_service.values() for name in answers_in(each)})
        raise InvalidAnswerError(f"no service takes an answer {event!r}; they take: {', '.join(known) or 'none'}")
    return taking


def answers_in(contract: Contract) -> list[str]:
    """Return the answers that a service takes."""
    return [each.name for each in contract.consumed() if each.answer]


def id_fields_of(event: str, contract: Contract) -> list[str]:
    """Return the fields of the saga's id in the sagas whose steps take this answer."""
    if event not in answers_in(contract):
        return []
    sagas = {each.saga for each in contract.handlers if event in each.triggers}
    return [each.id_field for each in contract.sagas if each.name in sagas]
