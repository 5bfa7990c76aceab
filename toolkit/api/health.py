"""A service's health: liveness, readiness, metrics and statistics."""

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
    of_all: dict[str, Any] = {"is_without_database": True, "is_open": True, "is_health_check": True}
    return [
        Endpoint(path="/healthz", serve=health.healthz, answer=Alive, **of_all),
        Endpoint(path="/readyz", serve=health.readyz, answer=Ready, answers_503=True, **of_all),
        Endpoint(path="/metrics", serve=health.metrics, is_health_check=True),
        Endpoint(path="/stats", serve=health.snapshot, answer=Snapshot),
    ]


class Health:
    """Reports the health of one service."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._statistics = Statistics(context.name, context.clock)

    async def healthz(self, _: Request) -> Response:
        """Report that the process is alive, without a check of broker or database: their outage restarts no service."""
        return self._context.answer(alive=True)

    async def readyz(self, _: Request) -> Response:
        """Report for broker, database and relay whether each works; 503 unless all do."""
        parts = await self._context.readiness()
        return json_answer(dict(parts), status=200 if all(parts.values()) else 503)

    async def metrics(self, _: Request) -> Response:
        """Return the metrics for Prometheus; gauges are missing during a database outage."""
        page = await metrics.page(self._context.service, self._context.database, self._context.readiness)
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    async def snapshot(self, _: Request) -> Response:
        """Return the service's statistics: sagas by state, their rate and duration, and the backlog."""
        snapshot = await self._statistics.snapshot(self._context.database, await self._context.readiness())
        return json_answer(snapshot.model_dump())
