"""All endpoints of one service, and the application that serves them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from toolkit.api.answers import error_answer
from toolkit.api.documents import document_endpoints
from toolkit.api.endpoints import Endpoint
from toolkit.api.health import health_endpoints
from toolkit.api.letters import letter_endpoints
from toolkit.api.log import log_endpoints
from toolkit.api.sagas import saga_endpoints
from toolkit.api.site import Site
from toolkit.api.waiting import waiting_endpoints


def api_routes(site: Site, token: SecretStr | None) -> list[Route]:
    """Return the routes; without a token of the service's own, all that needs one is refused."""
    return [each.route(token, site.name) for each in endpoints_of(site)]


def health_routes(site: Site) -> list[Route]:
    """Return what programs ask that watch a service, without a token: `/healthz`, `/readyz` and `/metrics`."""
    return [each.route(None, site.name) for each in health_endpoints(site) if each.is_for_watchers]


def endpoints_of(site: Site) -> list[Endpoint]:
    """Return all endpoints, in the order in which a path is looked for among them."""
    endpoints = [
        *health_endpoints(site),
        *saga_endpoints(site),
        *log_endpoints(site),
        *letter_endpoints(site),
        *waiting_endpoints(site),
    ]
    return [*endpoints, *document_endpoints(site, endpoints)]


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
