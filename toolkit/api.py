"""The HTTP API of one service that only reads: is it alive, is it ready, and what does its saga log say.

It only reads, and every answer is JSON, but for that to Prometheus; errors too: 400 says what is allowed, 503 that the
database is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from toolkit import dead_letters, horizon, metrics, outbox, saga_log
from toolkit.database import Database, is_outage
from toolkit.dead_letters import Selection
from toolkit.events import SagaId, SagaState

Readiness = Callable[[], Awaitable[Mapping[str, bool]]]
Endpoint = Callable[[Request], Awaitable[Response]]

DEFAULT_LIMIT = 100
#: Enough to look around; whoever wants all of it reads the database.
MAX_LIMIT = 1_000
#: How long a query may take, in seconds: less than the CLI waits, so that it learns the reason.
_QUERY_TIMEOUT = 4
#: How long Prometheus waits for what waits, in seconds: what was counted is there anyhow.
_GLANCE = 2

#: As many digits as any row's number has; more would be no BIGINT.
_LONGEST_ROW = 18

_SAGA_ID: TypeAdapter[str] = TypeAdapter(SagaId)


def api_routes(service: str, database: Database, readiness: Readiness) -> list[Route]:
    """Return the routes; `readiness` tells of broker, database and relay whether each is there."""
    api = Api(service, database, readiness)
    return [
        Route("/healthz", api.healthz),
        Route("/readyz", api.readyz),
        Route("/metrics", answered(api.metrics)),
        Route("/sagas", answered(api.sagas)),
        Route("/sagas/{id:path}", answered(api.saga)),
        Route("/log", answered(api.log)),
        Route("/remains", answered(api.remains)),
    ]


def application(routes: Sequence[Route], lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Return the application that serves these routes; what is none of them is answered in JSON, too."""
    paths = ", ".join(dict.fromkeys(route.path.replace(":path", "") for route in routes))

    async def refuse(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return error_answer(500, "something went wrong; the service's log says what")
        told = f"there is no {request.url.path!r}; there are: {paths}"
        if error.status_code == 405:
            told = f"{request.method} is not allowed here"
        answer = error_answer(error.status_code, told)
        answer.headers.update(error.headers or {})
        return answer

    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refuse, Exception: refuse})


class Api:
    """The endpoints of one service."""

    def __init__(self, service: str, database: Database, readiness: Readiness) -> None:
        self._service = service
        self._database = database
        self._readiness = readiness

    async def healthz(self, _: Request) -> Response:
        """Say that the process is alive; asks nobody, so that an outage elsewhere restarts nothing here."""
        return json_answer({"service": self._service, "alive": True})

    async def readyz(self, _: Request) -> Response:
        """Say whether all that the service needs is there, and what is not."""
        parts = await self._readiness()
        return json_answer(dict(parts), status=200 if all(parts.values()) else 503)

    async def metrics(self, _: Request) -> Response:
        """Tell Prometheus what was counted since the start, and, unless the database is away, what waits."""
        try:
            async with asyncio.timeout(_GLANCE), self._database.reading() as connection:
                await metrics.look(connection, self._service)
        except Exception as error:
            if not is_outage(error):
                raise
            metrics.forget(self._service)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def sagas(self, request: Request) -> Response:
        """List sagas as this service sees them, the latest moved first; `?state=` picks, `?limit=` bounds."""
        state, limit = _state(request), limit_of(request)
        async with self._database.reading() as connection:
            found = await saga_log.sagas(connection, state=state, limit=limit)
        return json_answer({"service": self._service, "sagas": found})

    async def saga(self, request: Request) -> Response:
        """Return all entries of one saga, the oldest first."""
        saga_id = request.path_params["id"]
        entries = await self._entries(saga_id)
        if not entries:
            return error_answer(404, f"{self._service} knows no saga {saga_id!r}", service=self._service)
        return json_answer({"service": self._service, "saga_id": saga_id, "entries": entries})

    async def log(self, request: Request) -> Response:
        """Return the newest entries, the oldest of them first; `?saga=` picks one saga, `?limit=` bounds.

        With `?after=` the next ones behind that row of the table, and in `next` the row to go on behind.
        """
        if "after" in request.query_params:
            return await self._page(_after(request), limit_of(request))
        entries = await self._entries(request.query_params.get("saga"), limit_of(request))
        return json_answer({"service": self._service, "entries": entries})

    async def remains(self, _: Request) -> Response:
        """Return what waits in the outbox, how many dead letters there are, and until when sagas were pruned."""
        async with self._database.reading() as connection:
            facts = {
                "outbox": await outbox.count(connection),
                "dead_letters": await dead_letters.count(connection, Selection()),
                "pruned_until": await horizon.reached(connection),
            }
        return json_answer({"service": self._service} | facts)

    async def _page(self, after: int, limit: int) -> Response:
        async with self._database.reading() as connection:
            entries, following = await saga_log.page(connection, after=after, limit=limit)
        return json_answer({"service": self._service, "entries": entries, "next": following})

    async def _entries(self, saga_id: str | None, limit: int | None = None) -> list[dict[str, Any]]:
        if saga_id is not None and not is_saga_id(saga_id):
            return []  # no such saga can be; PostgreSQL would stumble over a NUL in it
        async with self._database.reading() as connection:
            return await saga_log.entries(connection, saga_id=saga_id, limit=limit)


class QueryError(ValueError):
    """A query value is not allowed; the text says what is."""


def answered(endpoint: Endpoint, *, within: float | None = _QUERY_TIMEOUT) -> Endpoint:
    """Let an endpoint answer its errors in JSON, and cut off one that takes longer than so many seconds."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            async with asyncio.timeout(within):
                return await endpoint(request)
        except QueryError as error:
            return error_answer(400, str(error))
        except Exception as error:
            if not is_outage(error):
                raise
            return error_answer(503, "the database does not answer; /readyz tells when it is back")

    return answer


def is_saga_id(value: str) -> bool:
    """Whether this can be a saga's id at all."""
    try:
        _SAGA_ID.validate_python(value)
    except ValidationError:
        return False
    return True


def _state(request: Request) -> SagaState | None:
    value = request.query_params.get("state")
    if value is None:
        return None
    try:
        return SagaState(value)
    except ValueError as error:
        raise QueryError(f"state={value!r} is not allowed: take one of {', '.join(SagaState)}") from error


def _after(request: Request) -> int:
    value = request.query_params["after"]
    if not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_ROW):
        raise QueryError(f"after={value!r} is not allowed: take 0, or what the page before it called `next`")
    return int(value)


def limit_of(request: Request) -> int:
    """Return how many rows are wanted.

    Raises:
        QueryError: it is no number, or not an allowed one.
    """
    value = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_ROW and 1 <= int(value) <= MAX_LIMIT):
        raise QueryError(f"limit={value!r} is not allowed: take a whole number from 1 to {MAX_LIMIT}")
    return int(value)


def error_answer(status: int, message: str, **facts: Any) -> Response:
    """Return an error in JSON."""
    return json_answer({"error": message} | facts, status=status)


def json_answer(content: Mapping[str, Any], *, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(to_json(content), status_code=status, media_type="application/json")
