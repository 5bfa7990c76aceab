"""What the service hears and says, and what its API can be asked; none of it changes while the service runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.openapi import openapi
from toolkit.api.responses import Serve
from toolkit.api.schemas import Document
from toolkit.declaration.contract import Contract
from toolkit.json_output import as_json
from toolkit.messaging.asyncapi import asyncapi


def document_endpoints(context: ApiContext, others: Sequence[Endpoint], *, reads_are_open: bool) -> list[Endpoint]:
    """Return the endpoints; `others` are all that the API has beside them."""
    contract = _served(
        context.contract, "Tell what the service hears and says: its steps, and its events with schemas."
    )
    told = _served(
        asyncapi(context.contract, exchange=context.exchange, queue=context.queue),
        "Tell what the service hears and says as an AsyncAPI 3 document.",
    )
    endpoints = [
        Endpoint(path="/contract", serve=contract, answer=Contract, asks_nobody=True),
        Endpoint(path="/asyncapi.json", serve=told, answer=Document, asks_nobody=True),
    ]
    itself = Endpoint(path="/openapi.json", serve=_served({}, _ITSELF), answer=Document, asks_nobody=True)
    document = openapi(context.name, [*others, *endpoints, itself], reads_are_open=reads_are_open)
    return [
        *endpoints,
        Endpoint(path=itself.path, serve=_served(document, _ITSELF), answer=Document, asks_nobody=True),
    ]


_ITSELF = "Tell what this API can be asked, and what it answers, as an OpenAPI 3.1 document."


def _served(document: Any, what: str) -> Serve:
    """Return what serves a document that never changes."""
    text = as_json(document)

    async def serve(_: Request) -> Response:
        return Response(text, media_type="application/json")

    serve.__doc__ = what
    return serve
