"""JSON responses, and the error handling of every endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from toolkit.errors import AmbiguousSagaError, InvalidAnswerError
from toolkit.json_output import as_json
from toolkit.persistence.database_errors import cure_of, is_outage, may_pass

Serve = Callable[[Request], Awaitable[Response]]

#: The time limit of a query, in seconds: shorter than the CLI's, which then shows the service's error.
QUERY_TIMEOUT = 4


class QueryError(ValueError):
    """A query value is not allowed; the text names the allowed ones."""


def answered(serve: Serve, *, within: float | None = QUERY_TIMEOUT) -> Serve:
    """Return a handler that answers errors in JSON, and stops after `within` seconds."""

    @wraps(serve)
    async def answer(request: Request) -> Response:
        try:
            async with asyncio.timeout(within):
                return await serve(request)
        except QueryError as error:
            return error_answer(400, str(error))
        except InvalidAnswerError as error:
            return error_answer(422, str(error))
        except AmbiguousSagaError as error:
            return error_answer(409, f"{error}, by `type`", saga_id=error.saga_id, types=error.types)
        except Exception as error:
            if not may_pass(error):
                raise
            fault = "does not answer" if is_outage(error) else f"refuses the query: {cure_of(error)}"
            return error_answer(503, f"the database {fault}; /readyz reports when it works again")

    return answer


def error_answer(status: int, message: str, **facts: Any) -> Response:
    """Return a JSON error response."""
    return json_answer({"error": message} | facts, status=status)


def json_answer(content: Mapping[str, Any], *, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(as_json(content), status_code=status, media_type="application/json")
