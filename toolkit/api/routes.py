"""All endpoints of one service, and the application that serves them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from toolkit.api.access import Access
from toolkit.api.answers import answer_endpoints
from toolkit.api.context import ApiContext
from toolkit.api.dead_letters import dead_letter_endpoints
from toolkit.api.documents import document_endpoints
from toolkit.api.endpoints import Endpoint
from toolkit.api.front import TOO_LARGE, FrontDoor
from toolkit.api.health import health_endpoints
from toolkit.api.log import log_endpoints
from toolkit.api.pending import waiting_endpoints
from toolkit.api.responses import error_answer
from toolkit.api.sagas import saga_endpoints


def api_routes(context: ApiContext, access: Access) -> list[Route]:
    """Return the routes, each guarded by its tokens."""
    return [each.route(access) for each in endpoints_of(context, reads_are_open=access.reads_are_open)]


def health_routes(context: ApiContext) -> list[Route]:
    """Return the routes of the health listener, without tokens: `/healthz`, `/readyz` and `/metrics`."""
    open_access = Access(context.name, token=None)
    return [each.route(open_access) for each in health_endpoints(context) if each.is_health_check]


def endpoints_of(context: ApiContext, *, reads_are_open: bool = True) -> list[Endpoint]:
    """Return all endpoints, in the order in which a request's path is matched.

    `reads_are_open` is for the OpenAPI document: whether reading needs no token.
    """
    endpoints = [
        *health_endpoints(context),
        *answer_endpoints(context),
        *saga_endpoints(context),
        *log_endpoints(context),
        *dead_letter_endpoints(context),
        *waiting_endpoints(context),
    ]
    return [*endpoints, *document_endpoints(context, endpoints, reads_are_open=reads_are_open)]


def application(
    routes: Sequence[Route], lifespan: Lifespan[Starlette] | None = None, *, names: Collection[str] | None = None
) -> Starlette:
    """Return the application that serves these routes, with JSON errors for all other paths.

    `names` are its host names, besides `localhost` and its IP addresses; None for the part of an application that
    checks them itself.
    """
    paths = list(dict.fromkeys(route.path.replace(":path", "") for route in routes))

    async def refuse(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return error_answer(500, "internal error; the service's log has its cause")
        prefix = request.scope.get("root_path", "")
        text = f"there is no {request.url.path!r}; there are: {', '.join(f'{prefix}{path}' for path in paths)}"
        if error.status_code == 405:
            text = f"{request.method} is not allowed here"
        elif error.status_code != 404:
            text = TOO_LARGE if error.status_code == 413 else error.detail
        answer = error_answer(error.status_code, text)
        answer.headers.update(error.headers or {})
        return answer

    async def leave(*_: object) -> Response:
        return Response()  # the client has gone, or was too slow: no response, and not an error of this service

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(FrontDoor, names=names)],
        exception_handlers={HTTPException: refuse, ClientDisconnect: leave, Exception: refuse},
    )
