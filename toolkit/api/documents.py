"""The contract, the AsyncAPI and the OpenAPI document, all constant while the service runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.openapi import openapi
from toolkit.api.responses import Serve, json_answer
from toolkit.declaration.contract import Contract
from toolkit.json_output import as_json
from toolkit.messaging.asyncapi import asyncapi


class Document(BaseModel):
    """A document of its own kind."""

    model_config = {"extra": "allow"}


def document_endpoints(context: ApiContext, others: Sequence[Endpoint], *, reads_are_open: bool) -> list[Endpoint]:
    """Return the endpoints; `others` are all other endpoints of the API."""
    contract = _served(
        context.contract, "Return what the service consumes and emits: its steps, and its events with schemas."
    )
    messages = _served(
        asyncapi(context.contract, exchange=context.exchange, queue=context.queue),
        "Return what the service consumes and emits as an AsyncAPI 3.1 document.",
    )
    endpoints = [
        Endpoint(path="/contract", serve=contract, answer=Contract, is_without_database=True),
        Endpoint(path="/asyncapi.json", serve=messages, answer=Document, is_without_database=True),
    ]
    itself = Endpoint(path="/openapi.json", serve=_served({}, _ITSELF), answer=Document, is_without_database=True)
    document = openapi(context.name, [*others, *endpoints, itself], reads_are_open=reads_are_open)

    async def serve(request: Request) -> Response:
        place = request.scope.get("root_path")
        return json_answer({**document, "servers": [{"url": place}]} if place else document)

    serve.__doc__ = _ITSELF
    return [*endpoints, Endpoint(path=itself.path, serve=serve, answer=Document, is_without_database=True)]


_ITSELF = "Return this API's requests and responses as an OpenAPI 3.1 document."


def _served(document: Any, description: str) -> Serve:
    """Return a handler that serves a constant document."""
    text = as_json(document)

    async def serve(_: Request) -> Response:
        return Response(text, media_type="application/json")

    serve.__doc__ = description
    return serve
