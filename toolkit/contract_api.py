"""The part of one service's HTTP API that tells what it hears and says; it never changes while the service runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.contract import Contract


def contract_routes(contract: Contract) -> list[Route]:
    """Return the routes that tell of this contract."""
    as_json = contract.model_dump_json()

    async def told(_: Request) -> Response:
        """Return the service's contract."""
        return Response(as_json, media_type="application/json")

    return [Route("/contract", told)]
