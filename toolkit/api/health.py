"""Is the service well: alive, ready, and what was counted."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import Site
from toolkit.api.endpoints import Endpoint
from toolkit.api.responses import json_answer
from toolkit.api.schemas import Alive, Ready
from toolkit.observability import metrics
from toolkit.operations.statistics import Figures
from toolkit.tracking.snapshot import Glance


def health_endpoints(site: Site) -> list[Endpoint]:
    """Return the endpoints."""
    health = Health(site)
    of_all: dict[str, Any] = {"asks_nobody": True, "is_open": True, "is_for_watchers": True}
    return [
        Endpoint(path="/healthz", serve=health.healthz, answer=Alive, **of_all),
        Endpoint(path="/readyz", serve=health.readyz, answer=Ready, answers_503=True, **of_all),
        Endpoint(path="/metrics", serve=health.metrics, is_for_watchers=True),
        Endpoint(path="/glance", serve=health.glance, answer=Glance),
    ]


class Health:
    """Tells whether the service is well, in one way or another."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._figures = Figures(site.name, site.clock)

    async def healthz(self, _: Request) -> Response:
        """Say that the process is alive; asks nobody, so that an outage elsewhere restarts nothing here."""
        return self._site.answer(alive=True)

    async def readyz(self, _: Request) -> Response:
        """Say whether all that the service needs is there, and what is not."""
        parts = await self._site.readiness()
        return json_answer(dict(parts), status=200 if all(parts.values()) else 503)

    async def metrics(self, _: Request) -> Response:
        """Tell Prometheus what was counted since the start, and, unless the database is away, what waits."""
        told = await metrics.page(self._site.service, self._site.database, self._site.readiness)
        return Response(told, media_type=CONTENT_TYPE_LATEST)

    async def glance(self, _: Request) -> Response:
        """Tell the service's figures: sagas by state, how fast they end, and what waits."""
        glance = await self._figures.glance(self._site.database, await self._site.readiness())
        return json_answer(glance.model_dump())
