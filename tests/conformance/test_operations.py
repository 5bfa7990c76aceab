"""What an operator does by hand: redrive, drop, replay, prune, abort; harmless twice, and audited."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest
from sqlalchemy import select, text, update

from tests.conformance.world import RabbitWorld, World, message
from tests.eventually import eventually
from tests.example_sagas.travel import RoomBooked, TicketIssued, TripRequested
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations import sagas
from toolkit.operations.dead_letters import BatchResult
from toolkit.persistence import audit_log, dead_letters, saga_log
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import DeadLetter, Selection
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import StepState
from toolkit.runtime import pruner

ADA = Operator("ada@desk", "the airline is back")
ALL = Selection()
MONTH = timedelta(days=30)

#: What only a broker has; an abort of embedded services runs them itself, which tests/cli shows.
with_a_broker = pytest.mark.parametrize("world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)


# -- redrive -------------------------------------------------------------------------------------------------------


async def test_a_redriven_compensation_goes_on_in_strict_order_to_the_end(world: World) -> None:
    trip = await flight_that_can_not_be_cancelled(world)

    batch = await redrive(world, "flight")
    await world.quiet()

    assert [(row["saga_id"], row["outcome"]) for row in batch.rows] == [(trip, "redriven")]
    assert await world.states("flight", trip) == ["executing", "completed", "compensating", "compensated"]
    flight = next(entry for entry in await world.log("flight", trip) if entry.to_state == "compensated")
    room = next(entry for entry in await world.log("hotel", trip) if entry.to_state == "compensated")
    assert room.event_id == flight.emitted_id
    assert await world.state(trip) == "Failed"
    assert await world.dead_letters("flight") == []


async def test_a_redrive_gives_the_step_all_its_attempts_again(world: World) -> None:
    trip = await flight_that_can_not_be_cancelled(world)
    world.script.plan("cancel_flight", *[ConnectionError("still away")] * 2)

    await redrive(world, "flight")
    await world.quiet()

    notes = await world.notes("flight", trip)
    assert notes == ["retrying", "retrying", "dead_lettered", "redriven", "retrying", "retrying", "ended"]
    assert await world.state(trip) == "Failed"


async def test_a_void_goes_on_after_a_redrive(world: World) -> None:
    world.script.plan("book_flight", *[ConnectionError("airline away")] * 3)
    world.script.plan("cancel_flight", *[ConnectionError("airline away")] * 3)
    trip = await world.request()
    await world.quiet()

    await redrive(world, "flight")
    await world.quiet()

    assert await world.states("flight", trip) == ["executing", "voiding", "failed"]
    assert await world.state(trip) == "Failed"


async def test_a_redrive_of_an_ended_saga_is_refused_and_the_letter_stays(world: World) -> None:
    trip = await flight_that_can_not_be_cancelled(world)
    await world.send(message(SagaEnded(saga_type="trip", failed=(trip,)), ""))
    await world.quiet()

    batch = await redrive(world, "flight")
    await world.quiet()

    assert [row["outcome"] for row in batch.rows] == ["refused"]
    assert batch.rows[0]["why"].startswith(f"saga {trip} has ended (Failed)")
    assert len(await world.dead_letters("flight")) == 1
    assert await audited(world, "flight") == []


async def test_two_operators_who_redrive_at_once_redrive_each_letter_once(world: World) -> None:
    trip = await flight_that_can_not_be_cancelled(world)

    bites = await asyncio.gather(*(redrive(world, "flight") for _ in range(5)))
    await world.quiet()

    assert [row["outcome"] for batch in bites for row in batch.rows] == ["redriven"]
    assert (await world.notes("flight", trip)).count("redriven") == 1
    assert await audited(world, "flight") == [("ada@desk", "redrive", "the airline is back", trip)]
    assert world.script.calls["cancel_flight"] == 4


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(world: World) -> None:
    trip = await flight_that_can_not_be_cancelled(world)

    batch = await redrive(world, "flight", dry_run=True)
    await world.quiet()

    assert [(row["saga_id"], row["outcome"]) for row in batch.rows] == [(trip, "would be redriven")]
    assert len(await world.dead_letters("flight")) == 1
    assert "redriven" not in await world.notes("flight", trip)


async def test_a_message_that_still_can_not_be_read_comes_back_as_a_letter(world: World) -> None:
    poison = WireMessage(b'{"trip_id": "t"}', "hotel.RoomBooked", message_id="m-1", correlation_id=None)
    await bury(world, "flight", poison, reason="no saga id")

    await redrive(world, "flight")
    await eventually(lambda: world.dead_letters("flight"))
    await world.quiet()

    (letter,) = await world.dead_letters("flight")
    assert (letter["reason"], letter["message_id"], letter["body"]) == ("no saga id", "m-1", '{"trip_id": "t"}')


async def test_an_order_that_can_not_be_read_is_found_by_its_id_also_after_a_redrive(world: World) -> None:
    await world.send(WireMessage(b'{"trip_id": "trip-1"}', "agency.TripRequested", headers={"event-version": 7}))
    await eventually(lambda: world.dead_letters("hotel"))

    await redrive(world, "hotel")
    await eventually(lambda: world.dead_letters("hotel"))
    await world.quiet()

    (letter,) = await world.dead_letters("hotel")
    assert (letter["reason"], letter["saga_id"]) == ("unknown version", "trip-1")


async def test_hundreds_of_letters_are_redriven_in_bites_and_their_sagas_end(world: World) -> None:
    await restart(world, relay_lease=timedelta(seconds=30))  # a busy machine may take longer than the tests' short one
    trips = [f"trip-{number}" for number in range(250)]
    world.script.always("book_room", "refuse", *trips)
    await bury(world, "hotel", *(message(TripRequested(trip_id=trip), trip) for trip in trips))

    bites = [await redrive(world, "hotel")]
    while bites[-1].after is not None:
        bites.append(await redrive(world, "hotel", after=bites[-1].after))
    await eventually(lambda: all_told(world, len(trips)), within=120)
    await world.quiet()

    assert len(bites) > 2
    assert sum(len(batch.rows) for batch in bites) == len(trips)
    assert await world.dead_letters("hotel") == []
    assert len(await audited(world, "hotel")) == len(trips)


async def test_a_dropped_letter_is_gone_and_its_saga_says_so(world: World) -> None:
    trip = await flight_that_can_not_be_cancelled(world)
    host = world.runtimes["flight"]

    await dead_letter_operations.drop(host.database, ALL, ADA, now=datetime.now(UTC))

    assert await world.dead_letters("flight") == []
    assert (await world.log("flight", trip))[-1].error == "the airline is back"
    assert (await world.notes("flight", trip))[-1] == "dropped"
    assert await audited(world, "flight") == [("ada@desk", "drop", "the airline is back", trip)]


# -- replay --------------------------------------------------------------------------------------------------------


async def test_a_replay_heals_a_saga_whose_event_was_lost(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))

    await replay(world, "trip-1")
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert await world.notes("hotel", "trip-1") == ["replayed"]
    assert await world.states("hotel", "trip-1") == ["completed", "confirmed"]
    assert await audited(world, "hotel") == [("ada@desk", "replay", "the airline is back", "trip-1")]


async def test_a_replay_tells_the_end_to_whoever_missed_it(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))
    ending = completed("desk", "issue_ticket", TicketIssued(trip_id="trip-1"), saga_state=SagaState.COMPLETED)
    await write(world, "desk", ending)

    await replay(world, "trip-1", "desk")
    await eventually(lambda: world.states("desk", "trip-1"))
    await world.quiet()

    assert await world.states("hotel", "trip-1") == ["completed", "confirmed"]


@pytest.mark.parametrize("refusing", [None, "issue_ticket"])
async def test_a_replay_of_a_finished_saga_changes_nothing(world: World, refusing: str | None) -> None:
    if refusing:
        world.script.plan(refusing, "refuse")
    trip = await world.request()
    await world.quiet()
    calls, states = dict(world.script.calls), await everything(world, trip)

    await replay(world, trip)
    await world.quiet()

    assert world.script.calls == calls
    assert await everything(world, trip) == states


# -- prune ---------------------------------------------------------------------------------------------------------


async def test_pruning_takes_ended_sagas_in_bites_and_never_an_open_one(world: World) -> None:
    ended = [await world.request() for _ in range(5)]
    await world.quiet()
    stuck = await flight_that_can_not_be_cancelled(world)
    await grow_old(world)
    young = await world.request()
    await world.quiet()

    bites = [await prune(world, "flight", most=4)]
    while not bites[-1].is_all:
        bites.append(await prune(world, "flight", most=4))

    assert sum(batch.sagas for batch in bites) == 5
    assert len(bites) > 2
    assert [await world.log("flight", trip) for trip in ended] == [[]] * 5
    assert (await world.states("flight", stuck))[-1] == "compensating"
    assert (await world.states("flight", young))[-1] == "confirmed"


async def test_the_letter_of_an_open_saga_is_kept_and_others_go(world: World) -> None:
    await flight_that_can_not_be_cancelled(world)
    await bury(world, "flight", WireMessage(b"{broken", "hotel.RoomBooked"))
    await grow_old(world)

    pruned = await prune(world, "flight")

    assert (pruned.sagas, pruned.dead_letters) == (0, 1)
    assert [letter["reason"] for letter in await world.dead_letters("flight")] == ["retries spent"]


async def test_a_duplicate_that_comes_after_its_saga_was_pruned_is_not_run(world: World) -> None:
    trip = await world.request()
    await world.quiet()
    await grow_old(world)
    for service in world.runtimes:
        await prune(world, service)

    await world.send(message(TripRequested(trip_id=trip), trip, occurred_at=datetime.now(UTC) - timedelta(days=40)))
    await world.quiet()

    assert world.script.calls == {"book_room": 1, "book_flight": 1, "issue_ticket": 1}
    assert await world.log("hotel", trip) == []
    (letter,) = await world.dead_letters("hotel")
    assert (letter["reason"], letter["saga_id"]) == ("older than the log", trip)


async def test_an_old_event_of_a_saga_that_was_never_pruned_is_run_as_ever(world: World) -> None:
    await grow_old(world)
    await prune(world, "hotel")

    await world.send(message(TripRequested(trip_id="trip-1"), "trip-1", occurred_at=datetime.now(UTC) - MONTH))
    await world.quiet()

    assert await world.state("trip-1") == "Failed"
    assert "its deadline had passed" in str(await world.log("hotel", "trip-1"))


async def test_the_setting_prunes_while_the_service_works(world: World) -> None:
    trip = await world.request()
    await world.quiet()
    await grow_old(world)

    await restart(world, retention=MONTH)

    await eventually(lambda: nothing_left(world, trip))
    assert await audited(world, "hotel") == []


# -- the broker's own dead letters ---------------------------------------------------------------------------------


@with_a_broker
async def test_what_lies_in_the_brokers_dead_letter_queue_comes_into_the_table(world: RabbitWorld) -> None:
    lost = message(TripRequested(trip_id="trip-1"), "trip-1")

    await put_into(f"{world.runtimes['hotel'].queue}.dead", lost, world)
    await eventually(lambda: world.dead_letters("hotel"))

    (letter,) = await world.dead_letters("hotel")
    assert (letter["reason"], letter["saga_id"]) == ("given up by the broker", "trip-1")
    assert letter["body"] == lost.body.decode()
    await eventually(lambda: is_empty(world, f"{world.runtimes['hotel'].queue}.dead"))


@with_a_broker
async def test_a_message_that_the_broker_gave_up_can_be_redriven(world: RabbitWorld) -> None:
    await world.stop()
    await have_it_given_up(world, message(TripRequested(trip_id="trip-1"), "trip-1"))

    await world.start()
    await eventually(lambda: world.dead_letters("hotel"))
    (letter,) = await world.dead_letters("hotel")
    await redrive(world, "hotel")
    await eventually(lambda: world.state("trip-1"))

    assert (letter["reason"], letter["routing_key"]) == ("rejected", "agency.TripRequested")
    assert await world.state("trip-1") == "Completed"


# -- abort ---------------------------------------------------------------------------------------------------------


@with_a_broker
async def test_an_abort_by_hand_brings_a_saga_back(world: RabbitWorld) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))

    done = await abort(world, "trip-1")
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert (done.returncode, done.stdout) == (0, "")
    assert await world.state("trip-1") == "Failed"
    assert await world.effects("hotel", "trip-1") == ["room 12 cancelled"]
    assert (await world.log("flight", "trip-1"))[0].error == "the traveller is ill"


# -- nudge and abort, at one service ---------------------------------------------------------------------------------


async def test_a_nudge_sends_what_was_lost_again_and_two_do_no_harm(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))
    hotel = world.runtimes["hotel"]

    for _ in range(2):
        await sagas.nudge(hotel.database, hotel.service.emitted(), "trip-1", ADA, now=datetime.now(UTC))
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert (await world.notes("hotel", "trip-1"))[0] == "nudged"
    assert world.script.calls["book_flight"] == 1
    assert (await audited(world, "hotel"))[0] == ("ada@desk", "nudge", "the airline is back", "trip-1")


async def test_an_abort_at_one_service_brings_the_saga_back_and_two_do_no_harm(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))

    for _ in range(2):
        await sagas.abort(world.runtimes["hotel"].database, "trip-1", ADA, now=datetime.now(UTC))
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()
    late = await sagas.abort(world.runtimes["hotel"].database, "trip-1", ADA, now=datetime.now(UTC))

    assert await world.state("trip-1") == "Failed"
    assert await world.effects("hotel", "trip-1") == ["room 12 cancelled"]
    assert (await world.log("flight", "trip-1"))[0].error == "the airline is back"
    assert [row["outcome"] for row in late.rows] == ["refused"]


# -- what the tests have in common ---------------------------------------------------------------------------------


async def flight_that_can_not_be_cancelled(world: World) -> str:
    """Have a trip refused at its end whose flight can't be cancelled: its letter is all that can go on."""
    world.script.plan("issue_ticket", "refuse")
    world.script.plan("cancel_flight", *[ConnectionError("airline away")] * 3)
    trip = await world.request()
    await eventually(lambda: world.dead_letters("flight"))
    await world.quiet()
    assert await world.state(trip) is None
    assert await world.states("hotel", trip) == ["completed"]
    return trip


async def restart(world: World, **changes: Any) -> None:
    await world.stop()
    world.settings = world.settings.model_copy(update=changes)
    await world.start()


async def redrive(world: World, service: str, **facts: Any) -> BatchResult:
    host = world.runtimes[service]
    return await dead_letter_operations.redrive(
        host.database, ALL, ADA, queue=host.queue, now=datetime.now(UTC), **facts
    )


async def replay(world: World, trip: str, *services: str) -> None:
    for name in services or world.runtimes:
        host = world.runtimes[name]
        await sagas.replay(host.database, host.service.emitted(), trip, ADA, now=datetime.now(UTC))


async def prune(world: World, service: str, **facts: Any) -> pruner.Pruned:
    database = world.runtimes[service].database
    return await pruner.prune(database, older_than=MONTH, now=datetime.now(UTC), **facts)


async def grow_old(world: World) -> None:
    """Let forty days pass for all that is written."""
    past = timedelta(days=40)
    for host in world.runtimes.values():
        async with host.database.transaction() as session:
            connection = await session.connection()
            for table, names in ((saga_log.saga_log, ("at",)), (dead_letters.dead_letters, ("first_at", "last_at"))):
                for row in (await connection.execute(select(table))).all():
                    earlier = {name: getattr(row, name) - past for name in names}
                    await connection.execute(update(table).where(table.c.id == row.id).values(earlier))


async def bury(world: World, service: str, *wires: WireMessage, reason: str = "schema") -> None:
    now = datetime.now(UTC)
    letters = [
        DeadLetter(id=new_id(), service=service, reason=reason, error="no passenger", message=wire, at=now)
        for wire in wires
    ]
    async with world.runtimes[service].database.transaction() as session:
        await dead_letters.add(await session.connection(), letters)


async def write(world: World, service: str, entry: Entry) -> None:
    async with world.runtimes[service].database.transaction() as session:
        await saga_log.append(await session.connection(), [entry])


def completed(service: str, step: str, emitted: Any, *, saga_state: SagaState = SagaState.STARTED) -> Entry:
    """Return what a service's log says of a step whose event, or whose saga's end, was lost on the way."""
    return Entry(
        service=service,
        saga_id=emitted.trip_id,
        saga_type="trip",
        step=step,
        position=1,
        from_state=None,
        to_state=StepState.COMPLETED,
        saga_state=saga_state,
        event_id=new_id(),
        event_type="TripRequested",
        emitted_id=new_id(),
        emitted_type=type(emitted).__name__,
        emitted_body=emitted.model_dump_json(),
        at=datetime.now(UTC),
    )


async def audited(world: World, service: str) -> list[tuple[str, str, str, str | None]]:
    async with world.runtimes[service].database.reading() as connection:
        rows = await audit_log.listed(connection, limit=2_000)
    return [(row["actor"], row["verb"], row["reason"], row["saga_id"]) for row in rows]


async def everything(world: World, trip: str) -> dict[str, Any]:
    return {name: (await world.states(name, trip), await world.effects(name, trip)) for name in world.runtimes}


async def all_told(world: World, count: int) -> bool:
    async with world.runtimes["desk"].database.reading() as connection:
        told = await connection.scalar(text("SELECT count(*) FROM effects WHERE what = 'apologized'"))
    return told == count


async def nothing_left(world: World, trip: str) -> bool:
    return not any([await world.log(name, trip) for name in world.runtimes])


async def is_empty(world: RabbitWorld, queue: str) -> bool:
    return not await world.depth(queue)


async def put_into(queue: str, wire: WireMessage, world: RabbitWorld) -> None:
    """Publish a message to one queue by the default exchange, as only a login with all rights may."""
    async with await aio_pika.connect(world.settings.broker_url) as connection, connection.channel() as channel:
        facts = {"message_id": wire.message_id, "correlation_id": wire.correlation_id, "type": wire.type}
        await channel.default_exchange.publish(aio_pika.Message(wire.body, headers=dict(wire.headers), **facts), queue)


async def have_it_given_up(world: RabbitWorld, wire: WireMessage) -> None:
    """Take a message, and have the broker give it up."""
    connection = await aio_pika.connect(world.settings.broker_url)
    async with connection, connection.channel() as channel:
        exchange = await channel.get_exchange(world.settings.exchange)
        facts = {"message_id": wire.message_id, "correlation_id": wire.correlation_id, "type": wire.type}
        sent = aio_pika.Message(wire.body, headers=dict(wire.headers), **facts)
        await exchange.publish(sent, routing_key=wire.routing_key)
        name = f"{world.settings.exchange}.hotel"
        queue = await channel.get_queue(name)

        async def is_given_up() -> bool:
            if taken := await queue.get(fail=False):
                await taken.reject(requeue=False)
            dead = await channel.declare_queue(f"{name}.dead", passive=True)
            return bool(dead.declaration_result.message_count)

        await eventually(is_given_up)


async def abort(world: World, trip: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit.cli", "abort", trip, "--reason", "the traveller is ill"]
    services = ",".join(f"{name}={host.database.url}" for name, host in world.runtimes.items())
    settings = {"SAGA_BROKER_URL": world.settings.broker_url, "SAGA_EXCHANGE": world.settings.exchange}
    environment = os.environ | settings | {"SAGA_SERVICES": services}
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
