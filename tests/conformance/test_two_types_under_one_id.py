"""A trip and its voucher share an id and are two sagas: neither changes the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete

from tests.conformance.world import World, message
from tests.eventually import eventually
from tests.example_sagas.travel import FlightCancelled, RoomBooked, TripRequested
from tests.example_sagas.vouchers import NightSetAside, SeatFreed, VoucherRequested
from toolkit import Event
from toolkit.configuration.settings import queue_name
from toolkit.declaration.events import AbortRequested, SagaEnded, SagaState
from toolkit.errors import AmbiguousSagaError
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage, abort_request
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations import sagas
from toolkit.persistence import dead_letters, outbox, overdue_search, overdue_steps, saga_log
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import DeadLetter, Selection
from toolkit.persistence.saga_log import Entry
from toolkit.runtime import pruner

ADA = Operator("ada", "to see it")
SERVICES = ("hotel", "flight", "desk")


async def request_both(world: World, one_id: str = "A-1") -> str:
    """Request a trip and its voucher, under one id."""
    await world.send(message(TripRequested(trip_id=one_id), one_id))
    await world.send(message(VoucherRequested(voucher_id=one_id), one_id, saga_type="voucher"))
    return one_id


async def what_they_did(world: World, one_id: str, service: str, kind: str) -> list[str]:
    """Return a service's effects for the trip, or for the voucher."""
    words = {"trip": ("room", "flight", "ticket", "apologized"), "voucher": ("night", "seat", "voucher", "regretted")}
    return [each for each in await world.effects(service, one_id) if each.startswith(words[kind])]


class Gate:
    """Holds a step until the test opens the gate."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.opened.wait()


async def test_both_complete_each_by_its_own_steps(shared_world: World) -> None:
    one_id = await request_both(shared_world)

    await shared_world.quiet()

    for kind in ("trip", "voucher"):
        assert await shared_world.state(one_id, kind) == "Completed"
        assert await shared_world.states("hotel", one_id, kind) == ["completed", "confirmed"]
        assert await shared_world.states("flight", one_id, kind) == ["executing", "completed", "confirmed"]
        assert await shared_world.states("desk", one_id, kind) == ["completed", "confirmed"]
    assert shared_world.script.booked == {"trip:A-1:book_flight", "voucher:A-1:hold_seat"}


@pytest.mark.parametrize("slow", ["trip", "voucher"])
async def test_one_sagas_end_leaves_the_other_open(shared_world: World, slow: str) -> None:
    """The other is held at its last step until all services know the first one's end, and is refused then."""
    gate, quick = Gate(), {"trip": "voucher", "voucher": "trip"}[slow]
    # An external call holds up no batch; a step at the desk would.
    outside, last = {"trip": ("book_flight", "issue_ticket"), "voucher": ("hold_seat", "send_voucher")}[slow]
    shared_world.script.plan(outside, gate)
    shared_world.script.always(last, "refuse", "A-1")
    one_id = await request_both(shared_world)
    await gate.reached.wait()
    for service in SERVICES:
        await eventually(lambda service=service: is_last(shared_world, service, one_id, quick, "confirmed"))

    gate.opened.set()
    await shared_world.quiet()

    assert await shared_world.state(one_id, quick) == "Completed"
    assert await shared_world.state(one_id, slow) == "Failed"
    assert await shared_world.states("hotel", one_id, slow) == ["completed", "compensated"]
    assert (await shared_world.states("flight", one_id, slow))[-3:] == ["completed", "compensating", "compensated"]
    undone = {"trip": ["room booked", "room 12 cancelled"], "voucher": ["night set aside", "night freed"]}
    assert await what_they_did(shared_world, one_id, "hotel", slow) == undone[slow]
    assert await what_they_did(shared_world, one_id, "hotel", quick) == undone[quick][:1]
    assert len(shared_world.script.booked) == 1


async def is_last(world: World, service: str, one_id: str, kind: str, state: str) -> bool:
    return (await world.states(service, one_id, kind))[-1:] == [state]


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_a_saga_ended_event_changes_its_own_type(shared_world: World, outcome: str) -> None:
    await write_done(shared_world, RoomBooked(trip_id="A-1", room="12"), "trip", "book_room", ago=timedelta(0))
    await write_done(shared_world, NightSetAside(voucher_id="A-1"), "voucher", "set_night_aside", ago=timedelta(0))

    end = SagaEnded.model_validate({"saga_type": "voucher", outcome: ("A-1",)})
    await shared_world.send(message(end, "", saga_type="voucher", event_id=new_id()))
    await eventually(lambda: knows_of_the_end(shared_world))
    await shared_world.quiet()

    assert await shared_world.states("hotel", "A-1", "trip") == ["completed"]
    assert await shared_world.notes("hotel", "A-1", "trip") == []


async def knows_of_the_end(world: World) -> bool:
    return len(await world.log("hotel", "A-1", "voucher")) == 2


async def test_an_abort_of_one_leaves_the_other(shared_world: World) -> None:
    gates = Gate(), Gate()
    shared_world.script.plan("book_flight", gates[0])
    shared_world.script.plan("hold_seat", gates[1])
    one_id = await request_both(shared_world)
    for gate in gates:
        await gate.reached.wait()

    await shared_world.send(abort_request("voucher", one_id, "no voucher", now=datetime.now(UTC)))
    await eventually(lambda: is_last(shared_world, "desk", one_id, "voucher", "fenced"))
    for gate in gates:
        gate.opened.set()
    await shared_world.quiet()

    assert await shared_world.state(one_id, "trip") == "Completed"
    assert await shared_world.state(one_id, "voucher") == "Failed"
    assert await what_they_did(shared_world, one_id, "hotel", "voucher") == ["night set aside", "night freed"]


async def test_a_twins_end_prevents_no_nudge(shared_world: World) -> None:
    await write_done(shared_world, NightSetAside(voucher_id="A-1"), "voucher", "set_night_aside", is_ended=True)
    await write_done(shared_world, RoomBooked(trip_id="A-1", room="12"), "trip", "book_room")

    await eventually(lambda: shared_world.state("A-1", "trip"))
    await shared_world.quiet()

    assert await shared_world.state("A-1", "trip") == "Failed", "the flight's time was over"
    assert (await shared_world.notes("hotel", "A-1", "trip"))[:2] == ["overdue", "nudged"]
    assert await shared_world.notes("hotel", "A-1", "voucher") == []
    assert shared_world.script.calls["hold_seat"] == 0


async def test_one_sagas_end_leaves_the_other_overdue(shared_world: World) -> None:
    for event, kind, step in (
        (NightSetAside(voucher_id="A-1"), "voucher", "set_night_aside"),
        (RoomBooked(trip_id="A-1", room="12"), "trip", "book_room"),
    ):
        await write_done(shared_world, event, kind, step, is_published=False)
    await eventually(lambda: are_late(shared_world, "trip", "voucher"))

    ended = SagaEnded(saga_type="voucher", completed=("A-1",))
    await shared_world.send(message(ended, "", saga_type="voucher", event_id=new_id()))

    await eventually(lambda: are_late(shared_world, "trip"))


async def are_late(world: World, *kinds: str) -> bool:
    async with world.runtimes["hotel"].database.reading() as connection:
        return sorted(step.saga_type for step in await overdue_steps.listed(connection)) == list(kinds)


async def test_only_the_ended_saga_is_pruned(shared_world: World) -> None:
    hotel = shared_world.runtimes["hotel"].database
    await write_done(shared_world, NightSetAside(voucher_id="A-1"), "voucher", "set_night_aside", is_ended=True)
    await write_done(shared_world, RoomBooked(trip_id="A-1", room="12"), "trip", "book_room", is_published=False)

    pruned = await pruner.prune(hotel, older_than=timedelta(minutes=1), now=datetime.now(UTC))

    assert pruned.sagas == 1
    assert await shared_world.log("hotel", "A-1", "voucher") == []
    assert await shared_world.states("hotel", "A-1", "trip") == ["completed"]


async def test_an_open_sagas_dead_letter_outlives_its_twin(shared_world: World) -> None:
    """The trip's dead letter can be redriven after the voucher's end, and the voucher's can't."""
    hotel = shared_world.runtimes["hotel"]
    await write_done(shared_world, NightSetAside(voucher_id="A-1"), "voucher", "set_night_aside", is_ended=True)
    await write_done(shared_world, RoomBooked(trip_id="A-1", room="12"), "trip", "book_room", is_published=False)
    freed = message(SeatFreed(voucher_id="A-1"), "A-1", saga_type="voucher")
    await add_dead_letter(shared_world, message(FlightCancelled(trip_id="A-1"), "A-1"), "book_room")
    await add_dead_letter(shared_world, freed, "set_night_aside")
    await pruner.prune(hotel.database, older_than=timedelta(minutes=1), now=datetime.now(UTC))
    await add_dead_letter(shared_world, freed, "set_night_aside")
    await write_done(shared_world, NightSetAside(voucher_id="A-1"), "voucher", "set_night_aside", is_ended=True)

    queue, now = queue_name(shared_world.settings, "hotel"), datetime.now(UTC)
    with pytest.raises(AmbiguousSagaError, match="trip, voucher"):
        await dead_letter_operations.redrive(hotel.database, Selection(saga_id="A-1"), ADA, queue=queue, now=now)
    of = {
        kind: await dead_letter_operations.redrive(
            hotel.database, Selection(saga_id="A-1", saga_type=kind), ADA, queue=queue, now=now
        )
        for kind in ("trip", "voucher")
    }

    assert [(row.saga_type, row.outcome) for row in of["trip"].rows] == [("trip", "redriven")]
    assert [(row.saga_type, row.outcome) for row in of["voucher"].rows] == [("voucher", "refused")]
    await eventually(lambda: is_last(shared_world, "hotel", "A-1", "trip", "compensated"))


async def add_dead_letter(world: World, wire: WireMessage, step: str) -> None:
    """Store a message as an old dead letter of the hotel."""
    dead_letter = DeadLetter(
        id=new_id(), service="hotel", reason="retries spent", error="full", message=wire, step=step,
        at=datetime.now(UTC) - timedelta(minutes=20),
    )  # fmt: skip
    async with world.runtimes["hotel"].database.transaction() as session:
        await dead_letters.add(await session.connection(), [dead_letter])


@pytest.mark.parametrize("operation", ["replay", "nudge", "abort"])
async def test_an_operation_needs_a_type(shared_world: World, operation: str) -> None:
    hotel, now = shared_world.runtimes["hotel"], datetime.now(UTC)
    await write_done(shared_world, NightSetAside(voucher_id="A-1"), "voucher", "set_night_aside", ago=timedelta(0))
    await write_done(shared_world, RoomBooked(trip_id="A-1", room="12"), "trip", "book_room", ago=timedelta(0))
    facts: dict[str, Any] = {} if operation == "abort" else {"service": hotel.service}
    operate = partial(getattr(sagas, operation), hotel.database, saga_id="A-1", by=ADA, now=now, **facts)

    with pytest.raises(AmbiguousSagaError, match="trip, voucher"):
        await operate()
    batch = await operate(saga_type="voucher")

    assert [(row.saga_type, row.outcome != "refused") for row in batch.rows] == [("voucher", True)]
    await eventually(lambda: shared_world.state("A-1", "voucher"))
    await shared_world.quiet()
    assert await shared_world.states("hotel", "A-1", "trip") == ["completed"]
    assert await shared_world.notes("hotel", "A-1", "trip") == []


async def test_aborts_of_both_are_separate_messages(shared_world: World) -> None:
    """A client without message ids aborts both during their external calls: neither abort is lost."""
    gates = Gate(), Gate()
    shared_world.script.plan("book_flight", gates[0])
    shared_world.script.plan("hold_seat", gates[1])
    one_id = await request_both(shared_world)
    for gate in gates:
        await gate.reached.wait()

    for kind in ("trip", "voucher"):
        wire = abort_request(kind, one_id, "changed my mind", now=datetime.now(UTC))
        await shared_world.send(replace(wire, message_id=None))
    await eventually(lambda: both_are_deferred(shared_world))
    for gate in gates:
        gate.opened.set()
    await shared_world.quiet()

    assert [await shared_world.state(one_id, kind) for kind in ("trip", "voucher")] == ["Failed", "Failed"]


async def both_are_deferred(world: World) -> bool:
    async with world.runtimes["flight"].database.reading() as connection:
        rows = await outbox.listed(connection, saga_id="A-1")
    return {(row.event_type, row.saga_type) for row in rows} >= {
        (AbortRequested.__name__, kind) for kind in ("trip", "voucher")
    }


async def write_done(
    world: World,
    event: Event,
    kind: str,
    step: str,
    *,
    ago: timedelta = timedelta(minutes=20),
    is_published: bool = True,
    is_ended: bool = False,
) -> None:
    """Write a log entry of a step that the hotel did that long ago; its event, if any, was lost."""
    entry = Entry(
        service="hotel",
        saga_id="A-1",
        saga_type=kind,
        step=step,
        position=1,
        from_state=None,
        to_state="completed",
        saga_state=SagaState.COMPLETED if is_ended else SagaState.STARTED,
        event_id=new_id(),
        event_type="TripRequested",
        emitted_id=new_id() if is_published else None,
        emitted_type=type(event).__name__,
        emitted_body=event.model_dump_json(),
        at=datetime.now(UTC) - ago,
    )
    async with world.runtimes["hotel"].database.transaction() as session:
        connection = await session.connection()
        await saga_log.append(connection, [entry])
        # The watchdog's search has passed that time already; only a test writes there.
        await connection.execute(delete(overdue_search.watched))
