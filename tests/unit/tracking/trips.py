"""The progress of trips on a real world of services, and short forms of it."""

from __future__ import annotations

from datetime import timedelta

from tests.conformance.world import EmbeddedWorld
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.operations import views
from toolkit.operations.views import SagaView
from toolkit.protocol.timeline import tell
from toolkit.tracking.progress import NodeProgress, Progress, progress

FORWARD = ["book_room", "book_flight", "issue_ticket"]
BACKWARD = ["cancel_flight", "cancel_room", "apologize"]
#: Longer than any test, and shorter than the steps' timeouts: a retry after it is seen waiting.
LATER = timedelta(seconds=40)


async def progress_of(
    world: EmbeddedWorld, trip: str, *, away: tuple[str, ...] = (), unknown: tuple[str, ...] = ()
) -> Progress:
    """Return how far a trip has come, with some services unreachable, and the contracts of some unknown."""
    contracts = [Contract.of(service) for service in world.services if service.name not in unknown]
    seen: dict[str, SagaView] = {}
    for name in world.runtimes.keys() - set(away):
        declared = next((each.events for each in contracts if each.service == name), {})
        async with world.runtimes[name].database.reading() as connection:
            seen[name] = await views.view(connection, trip, declared)
    timeline = tell(trip, {name: view.entries for name, view in seen.items()}, unreachable=dict.fromkeys(away, "gone"))
    return progress(timeline, Choreography(contracts), seen)


def statuses(found: Progress) -> dict[str, str]:
    """Return the nodes' statuses by name."""
    return {node.name: str(node.status) for node in found.nodes}


def node(found: Progress, name: str) -> NodeProgress:
    """Return the node of this name."""
    return next(each for each in found.nodes if each.name == name)


def plain(found: Progress) -> str:
    """Return the summary with `T` for each of its times."""
    return " ".join("T" + word[8:] if word[2:3] == word[5:6] == ":" else word for word in found.summary.split())
