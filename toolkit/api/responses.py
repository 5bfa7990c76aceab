"""Answers in JSON, errors too, and what every endpoint's answer goes through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from toolkit.errors import AmbiguousSagaError
from toolkit.json_output import as_json
from toolkit.persistence.database_errors import cure_of, is_outage, may_pass

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


def error_answer(status: int, message: str, **facts: Any) -> Response:
    """Return an error in JSON."""
    return json_answer({"error": message} | facts, status=status)


def json_answer(content: Mapping[str, Any], *, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(as_json(content), status_code=status, media_type="application/json")
