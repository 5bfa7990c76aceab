"""The console as an application: its routes, what stands before them, and what it holds while it runs.

The one place that puts its pages together; everything else is handed what it needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from toolkit.client.service_client import ServiceClient
from toolkit.console.guard import Guard, Keys, local_path
from toolkit.console.https_proxy import BehindHttps
from toolkit.console.pages.attention import AttentionPage
from toolkit.console.pages.choreography import ChoreographyPage
from toolkit.console.pages.overview import OverviewPage
from toolkit.console.pages.saga import SagaPage
from toolkit.console.pages.sagas import SagasPage
from toolkit.console.pages.sign_in import SigningIn
from toolkit.console.redrive_jobs import Jobs
from toolkit.console.service_cache import Services
from toolkit.console.submissions import Submissions
from toolkit.console.templating import STATIC, Pages


def application(
    clients: Sequence[ServiceClient],
    *,
    token: SecretStr | None,
    must_sign_in: bool,
    actor: str = "console",
    behind_https: bool = False,
) -> Starlette:
    """Return the console of these services; `token` is what they want to be shown, and what one signs in with.

    Where nobody signs in, forms are filled in with the name `actor`. `behind_https`: a proxy stands before it that
    browsers ask by HTTPS.
    """
    services = Services(clients)
    keys = Keys(token)
    pages = Pages(keys, must_sign_in=must_sign_in, actor=actor)
    jobs = Jobs()
    saga = SagaPage(services, pages, keys, Submissions(), actor=actor)
    attention = AttentionPage(services, pages, keys, jobs, actor=actor)
    signing_in = SigningIn(keys, pages)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # Contracts are read at the start, so that the graph has a service that goes away later.
        asking = asyncio.create_task(services.learn())
        yield
        asking.cancel()
        await jobs.close()
        await services.close()

    return Starlette(
        routes=[
            Route("/", OverviewPage(services, pages).show),
            Route("/sagas", SagasPage(services, pages).show),
            Route("/sagas/{id:path}", saga.show),
            Route("/nudge", saga.nudge, methods=["POST"]),
            Route("/abort", saga.abort, methods=["POST"]),
            Route("/attention", attention.show),
            Route("/attention/{verb}", attention.ask),
            Route("/attention/{verb}", attention.begin, methods=["POST"]),
            Route("/attention/jobs/{name}", attention.job),
            Route("/choreography", ChoreographyPage(services, pages).show),
            Route("/sign-in", signing_in.ask),
            Route("/sign-in", signing_in.take, methods=["POST"]),
            Route("/sign-out", signing_in.leave, methods=["POST"]),
            Route("/healthz", _healthz),
            Route("/favicon.ico", _icon),
            Mount("/static", _Assets(directory=STATIC)),
        ],
        middleware=[
            *([Middleware(BehindHttps)] if behind_https else []),
            Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=6),
            Middleware(Guard, keys=keys, is_open=not must_sign_in),
        ],
        exception_handlers={HTTPException: _Faults(pages).tell},  # type: ignore[dict-item]  # narrower than declared
        lifespan=lifespan,
    )


class _Assets(StaticFiles):
    """What lies in static/; a browser keeps it, and asks whether it is still the same."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


class _Faults:
    """Shows what is wrong with a request as a page."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def tell(self, request: Request, error: HTTPException) -> Response:
        """Return the page."""
        came_from = _came_from(request)
        heading = {404: "There is no such page", 403: "This is not allowed", 405: "Not like this"}
        page = self._pages.page(
            request,
            "message",
            status=error.status_code,
            heading=heading.get(error.status_code, "This can't be done"),
            text=error.detail,
            back=came_from or "/",
            back_text="Back to where you were" if came_from else "To the overview",
        )
        page.headers.update(error.headers or {})
        return page


def _came_from(request: Request) -> str | None:
    """Return the page of ours whose form, or link, led here."""
    page = urlsplit(request.headers.get("referer", ""))
    if page.netloc != request.headers.get("host", "") or page.path == request.url.path == "/":
        return None
    return local_path(page.path + (f"?{page.query}" if page.query else ""))


async def _icon(_: Request) -> Response:
    """Return the icon to who asks for it where browsers look by themselves: beside raw JSON, say."""
    return FileResponse(STATIC / "icon.svg", headers={"Cache-Control": "max-age=86400"})


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("alive\n")
