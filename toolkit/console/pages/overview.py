"""`/`: the number of sagas by state, how fast they end, and what waits, per service and in total.

Several services count the same saga, so only queues are summed up; for sagas, the service with the most counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from toolkit.client.fan_out import Responses
from toolkit.console.service_cache import LIVE_MAX_WAIT, MAX_WAIT, ServiceCache
from toolkit.console.templating import Pages
from toolkit.declaration.events import SagaState
from toolkit.tracking.snapshot import Snapshot

_ENDS = (SagaState.COMPLETED, SagaState.FAILED)


@dataclass(frozen=True, slots=True)
class Totals:
    """The statistics of all services together."""

    by_state: Mapping[str, int]
    is_counted: bool
    rate: float
    p95: float | None
    overdue: int
    dead_letters: int
    outbox: int
    outbox_oldest: float | None


@dataclass(slots=True)
class Overview:
    """The content of the page."""

    services: list[str]
    answers: Responses[Snapshot]
    totals: Totals = field(init=False)

    def __post_init__(self) -> None:
        """Compute the totals."""
        self.totals = totals(self.answers.by_service.values())


class OverviewPage:
    """Shows the overview."""

    def __init__(self, services: ServiceCache, pages: Pages) -> None:
        self._services = services
        self._pages = pages

    async def show(self, request: Request) -> Response:
        """Show the overview."""
        is_live = request.query_params.get("part") == "live"
        max_wait = LIVE_MAX_WAIT if is_live else MAX_WAIT
        answers = await self._services.query("snapshot", lambda each: each.snapshot(), max_wait=max_wait)
        return self._pages.page(
            request, "overview", overview=Overview(self._services.names, answers), states=list(SagaState)
        )


def totals(snapshots: Iterable[Snapshot]) -> Totals:
    """Return the totals of services' snapshots."""
    known = list(snapshots)
    return Totals(
        by_state=by_state(known),
        is_counted=all(each.is_counted for each in known),
        rate=max((each.rate for each in known), default=0.0),
        p95=max((each.p95 for each in known if each.p95 is not None), default=None),
        overdue=sum(each.overdue for each in known),
        dead_letters=sum(each.dead_letters for each in known),
        outbox=sum(each.outbox for each in known),
        outbox_oldest=max((each.outbox_oldest for each in known if each.outbox_oldest is not None), default=None),
    )


def by_state(snapshots: Iterable[Snapshot]) -> dict[str, int]:
    """Return how many sagas are in each state, over all services.

    The number of sagas of a type is that of the service with the most. An end that one service has recorded counts as
    the saga's end, and likewise a compensation; the remaining sagas are pending.
    """
    of_type: dict[str, list[Mapping[str, int]]] = defaultdict(list)
    for snapshot in snapshots:
        for name, counts in snapshot.by_type.items():
            of_type[name].append(counts)
    found: dict[str, int] = dict.fromkeys(SagaState, 0)
    for per_service in of_type.values():
        left = max(sum(counts.values()) for counts in per_service)
        for state in (*_ENDS, SagaState.COMPENSATING):
            share = min(left, max(counts.get(state, 0) for counts in per_service))
            found[state] += share
            left -= share
        found[SagaState.PENDING] += left
    return found
