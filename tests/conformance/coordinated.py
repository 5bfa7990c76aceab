"""What tests of a coordinated trip send, and how they check its end by the services' logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conformance.world import World, message
from tests.example_sagas.orchestrated_travel import COORDINATOR
from toolkit import Event
from toolkit.declaration.events import AbortRequested
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage, abort_request
from toolkit.protocol.commands import Address, Outcome, Reply, Verb
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.timeline import merge

#: The services whose steps are asked, in the plan's order, and their steps.
ASKED = {"hotel": "book_room", "flight": "book_flight", "desk": "issue_ticket"}


#: By step, the states of a coordinator's streams, or of a participant's.
Logs = dict[str, list[str]]
#: What became of a step, in the coordinator's log.
DONE = ["executing", "completed", "confirmed"]
UNDONE = ["executing", "completed", "compensating", "compensated"]
REFUSED = ["executing", "failed"]
GIVEN_UP = ["executing", "voiding", "failed"]
#: The room and the flight, an external step, in their own services' logs; and the desk's apology.
ROOM_DONE, ROOM_UNDONE = {"book_room": ["completed", "confirmed"]}, {"book_room": ["completed", "compensated"]}
FLIGHT_DONE, FLIGHT_UNDONE = {"book_flight": DONE}, {"book_flight": UNDONE}
APOLOGY = {"apologize": ["completed"]}


async def check(world: World, trip: str, end: str) -> None:
    """Check that the trip has ended so, that its logs violate no invariant, and that nothing is left over."""
    await world.quiet()
    await check_at_rest(world, trip, end)


async def check_at_rest(world: World, trip: str, end: str) -> None:
    """Check the same of a trip in a world that is quiet."""
    logs = [await world.log(service.name, trip) for service in world.services]
    assert await world.state(trip) == end, "\n".join(map(str, merge(logs)))
    assert [str(each.text) for each in violations_of(trip, merge(logs))] == []
    for service in world.services:
        assert await world.dead_letters(service.name) == []


async def logs(world: World, trip: str) -> dict[str, Logs]:
    """Return the states that each step of each service went through, notes left out."""
    found: dict[str, Logs] = {}
    for service in (COORDINATOR, *ASKED):
        steps = found.setdefault(service, {})
        for entry in await world.log(service, trip):
            if entry.position:
                steps.setdefault(entry.step, []).append(entry.to_state)
    return found


def ended(own: str, *, well: bool = False, taken: int = 0, **steps: list[str]) -> Logs:
    """Return the coordinator's log of a trip that has ended, with these of its steps.

    `own` is its plan's stream; where steps are asked in parallel, it notes each of the `taken` messages that moved one.
    """
    begun = ["gathering"] * taken or ["executing"]
    if well:
        return {own: [*begun, "completed", "confirmed"], **steps}
    return {own: [*begun, "failed"], **steps, "apologize": ["executing", "completed"]}


def command(verb: Verb, step: str, event: Event, trip: str, *, coordinator: str = COORDINATOR) -> WireMessage:
    """Return a command as a coordinator sends it."""
    return message(event, trip, event_id=new_id(), address=Address(coordinator, verb, step))


def undo(step: str, trip: str, **facts: Any) -> WireMessage:
    """Return the command to undo a step."""
    request = AbortRequested(saga_type="trip", saga_id=trip, reason="it took too long")
    return command(Verb.UNDO, step, request, trip, **facts)


def reply(step: str, outcome: Outcome, event: Event, trip: str) -> WireMessage:
    """Return a reply as a step's service sends it."""
    return message(event, trip, event_id=new_id(), reply=Reply(step, outcome))


def timer(step: str, event: Event, trip: str) -> WireMessage:
    """Return the message by which the coordinator is reminded of a step's deadline."""
    return message(event, trip, event_id=new_id(), timer=step)


def abort(trip: str) -> WireMessage:
    """Return an operator's abort."""
    now = datetime.now(UTC)
    return abort_request("trip", trip, "the customer cancelled", now=now, started_at=now - timedelta(seconds=1))
