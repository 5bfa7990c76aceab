"""Answers in JSON, errors too, and what every endpoint's answer goes through."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from toolkit.database_errors import cure_of, is_outage, may_pass
from toolkit.errors import AmbiguousSagaError
from toolkit.json_output import as_json

Serve = Callable[[Request], Awaitable[Response]]

#: How long a query may take, in seconds: less than the CLI waits, so that it learns the reason.
QUERY_TIMEOUT = 4


class QueryError(ValueError):
    """A query value is not allowed; the text says what is."""


def answered(serve: Serve, *, within: float | None = QUERY_TIMEOUT) -> Serve:
    """Let an endpoint answer its errors in JSON, and cut off one that takes longer than so many seconds."""

    @wraps(serve)
    async def answer(request: Request) -> Response:
        try:
            async with asyncio.timeout(within):
                return await serve(request)
        except QueryError as error:
            return error_answer(400, str(error))
        except AmbiguousSagaError as error:
            return error_answer(409, f"{error}, by `type`", saga_id=error.saga_id, types=error.types)
        except Exception as error:
            if not may_pass(error):
                raise
            told = "does not answer" if is_outage(error) else f"does not do what is asked: {cure_of(error)}"
            return error_answer(503, f"the database {told}; /readyz tells when it is back")

    return answer


def guarded(serve: Serve, token: SecretStr | None, service: str) -> Serve:
    """Let only those in who show the token; nobody where the service has none."""

    @wraps(serve)
    async def guard(request: Request) -> Response:
        if token is None:
            text = f"this is switched off: start {service} with SAGA_API_TOKEN, and send that as Authorization: Bearer"
            return error_answer(403, text, service=service)
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(shown.strip().encode("latin-1"), token.get_secret_value().encode())
        if kind.lower() != "bearer" or not is_right:
            text = f"show the token of {service}: Authorization: Bearer and its SAGA_API_TOKEN"
            refused = error_answer(401, text, service=service)
            refused.headers["www-authenticate"] = "Bearer"
            return refused
        return await serve(request)

    return guard


def error_answer(status: int, message: str, **facts: Any) -> Response:
    """Return an error in JSON."""
    return json_answer({"error": message} | facts, status=status)


def json_answer(content: Mapping[str, Any], *, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(as_json(content), status_code=status, media_type="application/json")
