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
    """Return the routes, each guarded by what may be asked with which token."""
    return [each.route(access) for each in endpoints_of(context, reads_are_open=access.reads_are_open)]


def health_routes(context: ApiContext) -> list[Route]:
    """Return what programs ask that watch a service, without a token: `/healthz`, `/readyz` and `/metrics`."""
    anybody = Access(context.name, token=None)
    return [each.route(anybody) for each in health_endpoints(context) if each.is_for_watchers]


def endpoints_of(context: ApiContext, *, reads_are_open: bool = True) -> list[Endpoint]:
    """Return all endpoints, in the order in which a path is looked for among them.

    `reads_are_open` is for the OpenAPI document: whether reading needs no token.
    """
    endpoints = [
        *health_endpoints(context),
        *saga_endpoints(context),
        *log_endpoints(context),
        *dead_letter_endpoints(context),
        *waiting_endpoints(context),
    ]
    return [*endpoints, *document_endpoints(context, endpoints, reads_are_open=reads_are_open)]


def application(
    routes: Sequence[Route], lifespan: Lifespan[Starlette] | None = None, *, names: Collection[str]
) -> Starlette:
    """Return the application that serves these routes; what is none of them is answered in JSON, too.

    `names` are those under which it is asked, beside `localhost` and its addresses.
    """
    paths = ", ".join(dict.fromkeys(route.path.replace(":path", "") for route in routes))

    async def refuse(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return error_answer(500, "something went wrong; the service's log says what")
        told = f"there is no {request.url.path!r}; there are: {paths}"
        if error.status_code == 405:
            told = f"{request.method} is not allowed here"
        elif error.status_code != 404:
            told = TOO_LARGE if error.status_code == 413 else error.detail
        answer = error_answer(error.status_code, told)
        answer.headers.update(error.headers or {})
        return answer

    async def leave(*_: object) -> Response:
        return Response()  # the client has gone, or was too slow: it gets no answer, and that is no failure of ours

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(FrontDoor, names=names)],
        exception_handlers={HTTPException: refuse, ClientDisconnect: leave, Exception: refuse},
    )
