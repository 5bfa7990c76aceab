"""Is the service well: alive, ready, and what was counted."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.responses import json_answer
from toolkit.api.schemas import Alive, Ready
from toolkit.observability import metrics
from toolkit.operations.statistics import Statistics
from toolkit.tracking.snapshot import Snapshot


def health_endpoints(context: ApiContext) -> list[Endpoint]:
    """Return the endpoints."""
    health = Health(context)
    of_all: dict[str, Any] = {"asks_nobody": True, "is_open": True, "is_for_watchers": True}
    return [
        Endpoint(path="/healthz", serve=health.healthz, answer=Alive, **of_all),
        Endpoint(path="/readyz", serve=health.readyz, answer=Ready, answers_503=True, **of_all),
        Endpoint(path="/metrics", serve=health.metrics, is_for_watchers=True),
        Endpoint(path="/stats", serve=health.snapshot, answer=Snapshot),
    ]


class Health:
    """Tells whether the service is well, in one way or another."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._statistics = Statistics(context.name, context.clock)

    async def healthz(self, _: Request) -> Response:
        """Say that the process is alive; asks nobody, so that an outage elsewhere restarts nothing here."""
        return self._context.answer(alive=True)

    async def readyz(self, _: Request) -> Response:
        """Say whether all that the service needs is there, and what is not."""
        parts = await self._context.readiness()
        return json_answer(dict(parts), status=200 if all(parts.values()) else 503)

    async def metrics(self, _: Request) -> Response:
        """Tell Prometheus what was counted since the start, and, unless the database is away, what waits."""
        told = await metrics.page(self._context.service, self._context.database, self._context.readiness)
        return Response(told, media_type=CONTENT_TYPE_LATEST)

    async def snapshot(self, _: Request) -> Response:
        """Tell the service's figures: sagas by state, how fast they end, and what waits."""
        snapshot = await self._statistics.snapshot(self._context.database, await self._context.readiness())
        return json_answer(snapshot.model_dump())
