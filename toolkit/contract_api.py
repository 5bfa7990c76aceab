"""The part of one service's HTTP API that tells what it hears and says; it never changes while the service runs."""

from __future__ import annotations

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.asyncapi import asyncapi
from toolkit.contract import Contract


def contract_routes(contract: Contract, *, exchange: str, queue: str) -> list[Route]:
    """Return the routes that tell of this contract, and how it goes over this exchange and the service's own queue."""
    as_contract = contract.model_dump_json().encode()
    as_asyncapi = to_json(asyncapi(contract, exchange=exchange, queue=queue))

    async def contract_told(_: Request) -> Response:
        """Return the service's contract."""
        return Response(as_contract, media_type="application/json")

    async def asyncapi_told(_: Request) -> Response:
        """Return the service's contract as an AsyncAPI document."""
        return Response(as_asyncapi, media_type="application/json")

    return [Route("/contract", contract_told), Route("/asyncapi.json", asyncapi_told)]
