"""The console as an ASGI application: routes, middleware and lifespan.

The console's composition root: every other module receives what it needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from toolkit.client.service_client import ServiceClient
from toolkit.console.guard import Guard, SessionKeys, local_path
from toolkit.console.https_proxy import BehindHttps
from toolkit.console.pages.attention import AttentionPage
from toolkit.console.pages.choreography import ChoreographyPage
from toolkit.console.pages.overview import OverviewPage
from toolkit.console.pages.questions import QuestionsPage
from toolkit.console.pages.saga import SagaPage
from toolkit.console.pages.sagas import SagasPage
from toolkit.console.pages.sign_in import SignInPage
from toolkit.console.redrive_jobs import Jobs
from toolkit.console.service_cache import ServiceCache
from toolkit.console.submissions import Submissions
from toolkit.console.templating import STATIC, Pages


def application(
    clients: Sequence[ServiceClient],
    *,
    token: SecretStr | None,
    must_sign_in: bool,
    actor: str = "console",
    behind_https: bool = False,
    names: Collection[str] = (),
) -> Starlette:
    """Return the console of these services; `token` is theirs, and the password of a sign-in.

    Without sign-in, forms are filled in with the name `actor`. `behind_https`: an HTTPS proxy is in front.
    `names`: the host names of a console that requires the sign-in.
    """
    services, keys, jobs = ServiceCache(clients), SessionKeys(token), Jobs()
    pages = Pages(keys, must_sign_in=must_sign_in, actor=actor)
    return Starlette(
        routes=_routes(services, pages, keys, jobs, actor=actor),
        middleware=[
            *([Middleware(BehindHttps, names=names)] if behind_https else []),
            Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=6),
            Middleware(Guard, keys=keys, is_open=not must_sign_in, names=names),
        ],
        exception_handlers={HTTPException: _ErrorPage(pages).show},  # type: ignore[dict-item]  # narrower than declared
        lifespan=_lifespan(services, jobs),
    )


def _routes(services: ServiceCache, pages: Pages, keys: SessionKeys, jobs: Jobs, *, actor: str) -> list[BaseRoute]:
    submissions = Submissions()
    saga = SagaPage(services, pages, keys, submissions, actor=actor)
    questions = QuestionsPage(services, pages, keys, submissions, actor=actor)
    attention = AttentionPage(services, pages, keys, jobs, actor=actor)
    session = SignInPage(keys, pages)
    return [
        Route("/", OverviewPage(services, pages).show),
        Route("/sagas", SagasPage(services, pages).show),
        Route("/sagas/{id:path}", saga.show),
        Route("/nudge", saga.nudge, methods=["POST"]),
        Route("/abort", saga.abort, methods=["POST"]),
        Route("/questions", questions.show),
        Route("/questions/answer", questions.ask),
        Route("/questions/answer", questions.answer, methods=["POST"]),
        Route("/attention", attention.show),
        Route("/attention/{verb}", attention.dry_run),
        Route("/attention/{verb}", attention.start, methods=["POST"]),
        Route("/attention/jobs/{name}", attention.job),
        Route("/choreography", ChoreographyPage(services, pages).show),
        Route("/sign-in", session.show),
        Route("/sign-in", session.sign_in, methods=["POST"]),
        Route("/sign-out", session.sign_out, methods=["POST"]),
        Route("/healthz", _healthz),
        Route("/favicon.ico", _icon),
        Mount("/static", _Assets(directory=STATIC)),
    ]


def _lifespan(services: ServiceCache, jobs: Jobs) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # Contracts are read at the start, so that the graph has a service that goes away later.
        loading = asyncio.create_task(services.load_contracts())
        yield
        loading.cancel()
        await jobs.close()
        await services.close()

    return lifespan


class _Assets(StaticFiles):
    """The files of static/; browsers cache them, and revalidate at each use."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


class _ErrorPage:
    """Shows an error as a page."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def show(self, request: Request, error: HTTPException) -> Response:
        """Return the page."""
        came_from = _came_from(request)
        heading = {404: "Page not found", 403: "Not allowed", 405: "Method not allowed"}
        page = self._pages.page(
            request,
            "message",
            status=error.status_code,
            heading=heading.get(error.status_code, "Invalid request"),
            text=error.detail,
            back=came_from or "/",
            back_text="Back to the previous page" if came_from else "To the overview",
        )
        page.headers.update(error.headers or {})
        return page


def _came_from(request: Request) -> str | None:
    """Return the address of the console's page with the form or link that led here."""
    page = urlsplit(request.headers.get("referer", ""))
    if page.netloc != request.headers.get("host", "") or page.path == request.url.path == "/":
        return None
    return local_path(page.path + (f"?{page.query}" if page.query else ""))


async def _icon(_: Request) -> Response:
    """Return the icon at the address that browsers request by default, for example for raw JSON."""
    return FileResponse(STATIC / "icon.svg", headers={"Cache-Control": "max-age=86400"})


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("alive\n")
