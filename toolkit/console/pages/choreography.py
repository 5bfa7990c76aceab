"""`/choreography`: the events that each step consumes and emits, how often, and their schemas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from toolkit.console.diagrams.graph import UNKNOWN_SERVICES, Looks, drawn, event_key, key_of
from toolkit.console.diagrams.shapes import Layout
from toolkit.console.service_cache import LIVE_MAX_WAIT, MAX_WAIT, ServiceCache
from toolkit.console.templating import Pages
from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import EventContract, SagaContract
from toolkit.tracking.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event, its emitters and consumers, and how often it was emitted in the last minutes, where that is known."""

    event: EventContract
    emitters: list[Node]
    consumers: list[Node]
    count: int | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """One saga's choreography."""

    saga: SagaContract
    layout: Layout
    looks: Looks
    links: Mapping[str, str]
    nodes: list[Node]


class ChoreographyPage:
    """Shows the choreography of all services' contracts."""

    def __init__(self, services: ServiceCache, pages: Pages) -> None:
        self._services = services
        self._pages = pages

    async def show(self, request: Request) -> Response:
        """Show the choreography."""
        is_live = request.query_params.get("part") == "live"
        max_wait = LIVE_MAX_WAIT if is_live else MAX_WAIT
        choreography, unknown = await self._services.choreography(max_wait=max_wait)
        answers = await self._services.query("snapshot", lambda each: each.snapshot(), max_wait=max_wait)
        counts = emitted(answers.by_service.values())
        away = {name: why for name, why in answers.unreachable.items() if name not in unknown}
        return self._pages.page(
            request,
            "choreography",
            sagas=[_drawn(choreography, saga, counts, list(unknown)) for saga in choreography.sagas],
            events=event_rows(choreography, counts, away),
            unknown=unknown,
            away=away,
            contracts=choreography.contracts,
        )


def emitted(snapshots: Iterable[Snapshot]) -> Counter[str]:
    """Return how often each event was emitted, over all services."""
    counts: Counter[str] = Counter()
    for snapshot in snapshots:
        counts.update(snapshot.edges)
    return counts


def event_rows(choreography: Choreography, counts: Mapping[str, int], away: Mapping[str, str]) -> list[EventRow]:
    """Return all events by name; the count is unknown where an emitter is unreachable."""
    names = sorted({name for contract in choreography.contracts for name in contract.events})
    nodes = choreography.nodes
    found = []
    for name in names:
        if event := choreography.event(name):
            emitters = [node for node in nodes if name in node.emits]
            is_known = bool(emitters) and not any(node.service in away for node in emitters)
            consumers = [node for node in nodes if name in node.triggers]
            found.append(EventRow(event, emitters, consumers, counts.get(name, 0) if is_known else None))
    return found


def _drawn(
    choreography: Choreography, saga: SagaContract, counts: Mapping[str, int], unknown_services: list[str]
) -> Drawn:
    layout = drawn(choreography, saga, counts=counts, unknown_services=unknown_services)
    nodes = choreography.nodes_of(saga)
    active = {
        (line.arrow.source, line.arrow.target): "taken busy"
        for line in layout.lines
        if any(counts.get(label) for label in line.arrow.labels)
    }
    links = {key_of(node.service, node.name): f"#handler-{node.service}-{node.name}" for node in nodes}
    links |= {event_key(event): f"#event-{event}" for event in (saga.starts_with, saga.completes_with, saga.fails_with)}
    return Drawn(saga, layout, Looks({UNKNOWN_SERVICES: "calm away"}, active), links, nodes)
