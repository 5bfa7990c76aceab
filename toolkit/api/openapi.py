"""The API's OpenAPI 3.1 document, generated from its endpoints."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from toolkit.api.endpoints import Endpoint
from toolkit.api.query_parameters import TEXT, Parameter
from toolkit.api.schemas import Failure

_REFERENCE = "#/components/schemas/{model}"
_FAULTS = {
    400: "A value is not allowed; the text names the allowed ones.",
    401: "The token is missing or wrong.",
    403: "The service has no SAGA_API_TOKEN, which switches this off; or the token only reads.",
    404: "The object does not exist; where the service takes no such answer, `answers` has those that it takes.",
    409: "Sagas of several types have this id; `types` names them. Or the step waits no more; `answer` has the reason.",
    413: "The body is too large; the text names the limit.",
    421: "The Host header is not a name of this service.",
    422: "A field is missing, unknown, or has a value that is not allowed.",
    429: "Too many wrong tokens of this client are being delayed; `Retry-After` is when to try again.",
    500: "An internal error; the service's log has its cause.",
    503: "The database does not answer.",
}


def openapi(service: str, endpoints: Sequence[Endpoint], *, reads_are_open: bool = True) -> dict[str, Any]:
    """Return the document of these endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(_path(each), {})[each.method.lower()] = _operation(each, _tokens(each, reads_are_open))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{service}, a service of saga-toolkit",
            "version": version("saga-toolkit"),
            "description": "Its sagas, its backlog, what needs an operator; and, with a token, operations on them.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(endpoints),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The service's SAGA_API_TOKEN."},
                "readToken": {"type": "http", "scheme": "bearer", "description": "Its SAGA_API_READ_TOKEN."},
            },
        },
    }


def _path(endpoint: Endpoint) -> str:
    return endpoint.path.replace(":path", "")


def _tokens(endpoint: Endpoint, reads_are_open: bool) -> list[dict[str, list[str]]]:
    """Return the alternative tokens that the endpoint accepts; none when it needs no token."""
    if endpoint.is_guarded:
        return [{"token": []}]
    return [] if reads_are_open or endpoint.is_open else [{"readToken": []}, {"token": []}]


def _operation(endpoint: Endpoint, tokens: list[dict[str, list[str]]]) -> dict[str, Any]:
    description = inspect.getdoc(endpoint.serve) or ""
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}{re.sub(r'[^a-z]+', '_', _path(endpoint)).rstrip('_')}",
        "summary": description.partition("\n")[0],
        "description": description,
        "parameters": [*_in_path(endpoint), *map(_in_query, endpoint.parameters)],
        "responses": {"200": _success(endpoint)} | {str(code): _fault(code) for code in _codes(endpoint, bool(tokens))},
    }
    if endpoint.body:
        content = {"application/json": {"schema": _reference(endpoint.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    if tokens:
        operation["security"] = tokens
    if endpoint.answers_503:
        operation["responses"]["503"] = _success(endpoint) | {"description": "At least one part does not work."}
    return operation


def _codes(endpoint: Endpoint, wants_token: bool) -> Iterator[int]:
    """Yield the status codes of the endpoint's errors."""
    yield from (413, 421)
    if wants_token:
        yield from (401, 429)
    if endpoint.parameters or endpoint.body or endpoint.may_miss:
        yield 400
    if endpoint.is_guarded:
        yield 403
    if endpoint.may_miss:
        yield 404
    if endpoint.may_be_ambiguous:
        yield 409
    if endpoint.may_be_invalid:
        yield 422
    if not endpoint.is_without_database:
        yield from (500, 503)


def _success(endpoint: Endpoint) -> dict[str, Any]:
    schema = _reference(endpoint.answer) if endpoint.answer else {"type": "string"}
    media = "application/json" if endpoint.answer else "text/plain"
    return {"description": "The answer.", "content": {media: {"schema": schema}}}


def _fault(code: int) -> dict[str, Any]:
    return {"description": _FAULTS[code], "content": {"application/json": {"schema": _reference(Failure)}}}


def _in_path(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", _path(endpoint)):
        yield {"name": name, "in": "path", "required": True, "schema": TEXT | {"minLength": 1}}


def _in_query(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": parameter.schema,
        "required": False,
    }


def _schemas(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    answers = {each.answer for each in endpoints if each.answer} | {Failure}
    bodies = {each.body for each in endpoints if each.body}
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        *((model, "serialization") for model in sorted(answers, key=lambda model: model.__name__)),
        *((model, "validation") for model in sorted(bodies, key=lambda model: model.__name__)),
    ]
    _, schema = models_json_schema(modes, ref_template=_REFERENCE)
    found: dict[str, Any] = schema["$defs"]
    return found


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
