"""An overdue saga is noted, nudged and finally aborted; clocks decide only when to check."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika
import pytest
from sqlalchemy import delete, update

from tests.conformance.world import RabbitWorld, World, message, settings_for
from tests.eventually import eventually
from tests.example_sagas.travel import FlightBooked, FlightRefused, RoomBooked, RoomCancelled
from tests.servers import Server
from toolkit import Event
from toolkit.configuration.settings import queue_name
from toolkit.declaration.events import SagaState
from toolkit.ids import new_id
from toolkit.operations import sagas
from toolkit.persistence import overdue_search, overdue_steps, saga_log
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import StepState


async def test_a_timely_saga_is_never_overdue(world: World) -> None:
    trip = await world.request()

    await world.quiet()
    await world.runtimes["hotel"].watchdog.sweep()

    assert await world.notes("hotel", trip) == []


async def test_the_watchdog_repairs_a_lost_event(world: World) -> None:
    await done_long_ago(world, FlightBooked(trip_id="trip-1"), ago=timedelta(minutes=20), by=("flight", "book_flight"))

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert (await world.notes("flight", "trip-1"))[:2] == ["overdue", "nudged"]
    assert await world.states("flight", "trip-1") == ["completed", "confirmed"]


async def test_a_nudge_past_the_deadline_compensates_the_saga(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(minutes=20))

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Failed"
    assert await world.effects("hotel", "trip-1") == ["room 12 cancelled"]
    assert world.script.calls["book_flight"] == 0


async def test_a_compensations_lost_event_is_sent_again(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(minutes=30))
    await done_long_ago(world, RoomCancelled(trip_id="trip-1"), ago=timedelta(minutes=20), position=2)

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Failed"
    assert await world.effects("desk", "trip-1") == ["apologized"]


async def test_a_saga_that_stays_overdue_is_aborted(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(hours=2))

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert "aborted" in await world.notes("hotel", "trip-1")
    hotel = await world.states("hotel", "trip-1")
    if await world.state("trip-1") == "Completed":
        assert hotel == ["completed", "confirmed"]
    else:
        assert hotel == ["completed", "compensated"]
        assert not world.script.booked


async def test_an_ended_sagas_step_is_not_overdue(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(minutes=20))
    world.script.plan("book_flight", "refuse")

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()
    nudges = (await world.notes("hotel", "trip-1")).count("nudged")
    await eventually(lambda: nothing_overdue(world, "hotel"))
    await world.runtimes["hotel"].watchdog.sweep()

    assert (await world.notes("hotel", "trip-1")).count("nudged") == nudges
    assert await world.state("trip-1") == "Failed"


async def test_a_nudge_of_an_ended_saga_changes_nothing(world: World) -> None:
    trip = await world.request()
    await world.quiet()

    await world.send(message(RoomBooked(trip_id=trip), trip))
    await world.send(message(FlightRefused(trip_id=trip, reason="stale"), trip))
    await world.quiet()

    assert await world.state(trip) == "Completed"
    assert world.script.calls["book_flight"] == 1


@pytest.mark.parametrize("refusing", [None, "issue_ticket"], ids=["completed", "failed"])
@pytest.mark.parametrize("missing", [("hotel",), ("hotel", "flight", "desk")], ids="-".join)
async def test_services_that_missed_an_end_receive_it(
    world: World, refusing: str | None, missing: tuple[str, ...]
) -> None:
    if refusing:
        world.script.plan(refusing, "refuse")
    trip = await world.request()
    await world.quiet()

    for service in missing:
        await forget_the_end(world, service)

    for service in missing:
        await eventually(lambda name=service: knows_the_end(world, name, trip), within=30)
        await eventually(lambda name=service: nothing_overdue(world, name), within=30)
    assert await world.state(trip) == ("Failed" if refusing else "Completed")
    assert world.script.calls["book_flight"] == 1


async def test_an_operators_nudge_repairs_a_lost_end(world: World) -> None:
    trip = await world.request()
    await world.quiet()
    await forget_the_end(world, "hotel", ago=timedelta(0))
    hotel, operator = world.runtimes["hotel"], Operator("Ada", "looks stuck")

    await sagas.nudge(hotel.database, hotel.service, trip, operator, now=datetime.now(UTC))

    await eventually(lambda: knows_the_end(world, "hotel", trip))


async def test_an_end_lost_without_binding_is_repaired(tmp_path: Path, prefix: str, rabbitmq: Server) -> None:
    """A real loss: the other queues receive the message, so that its publisher gets a confirm."""
    quick = {"overdue_after": timedelta(seconds=1), "redeclare_every": timedelta(seconds=1)}
    world = RabbitWorld(settings_for(tmp_path, broker_url=rabbitmq.url, exchange=prefix, **quick), no_database)
    await world.start()
    try:
        await world.request()  # the services are running
        await world.quiet()
        is_unbound = asyncio.Event()
        unbinding = asyncio.create_task(keep_unbound(world, "hotel", "saga.SagaEnded", is_unbound))
        await is_unbound.wait()
        trip = await world.request()
        await eventually(lambda: knows_the_end(world, "flight", trip))
        unbinding.cancel()
        assert not await knows_the_end(world, "hotel", trip)

        await eventually(lambda: knows_the_end(world, "hotel", trip), within=30)
        await eventually(lambda: nothing_overdue(world, "hotel"), within=30)
        assert await world.states("hotel", trip) == ["completed", "confirmed"]
    finally:
        await world.stop()
        await world.sweep()


async def no_database(_: str) -> None:
    """Let each service use its file."""


async def keep_unbound(world: RabbitWorld, service: str, key: str, is_unbound: asyncio.Event) -> None:
    """Unbind a key repeatedly: the service declares it again."""
    connection = await aio_pika.connect(world.settings.broker_url)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(queue_name(world.settings, service))
        while True:
            await queue.unbind(world.settings.exchange, key)
            is_unbound.set()


async def knows_the_end(world: World, service: str, trip: str) -> bool:
    """Whether the service has noted the end for each of its steps of the trip."""
    log = await world.log(service, trip)
    noted = {entry.step for entry in log if entry.event_type == "SagaEnded"}
    return bool(noted) and noted == {entry.step for entry in log}


async def forget_the_end(world: World, service: str, *, ago: timedelta = timedelta(minutes=20)) -> None:
    """Make a service's log as if the end had been lost, some time ago."""
    table = saga_log.saga_log
    async with world.runtimes[service].database.transaction() as session:
        connection = await session.connection()
        await connection.execute(delete(table).where(table.c.event_type == "SagaEnded"))
        await connection.execute(update(table).values(at=datetime.now(UTC) - ago))
        await connection.execute(delete(overdue_search.watched))


async def nothing_overdue(world: World, service: str) -> bool:
    async with world.runtimes[service].database.reading() as connection:
        return not await overdue_steps.listed(connection)


async def done_long_ago(
    world: World,
    emitted: Event,
    *,
    ago: timedelta,
    position: int = 1,
    by: tuple[str, str] = ("hotel", "book_room"),
) -> None:
    """Write the log entry of a step whose event was lost, for example with a deleted queue."""
    entry = Entry(
        service=by[0],
        saga_id="trip-1",
        saga_type="trip",
        step=by[1],
        position=position,
        from_state=StepState.COMPLETED if position > 1 else None,
        to_state=StepState.COMPENSATED if position > 1 else StepState.COMPLETED,
        saga_state=SagaState.COMPENSATING if position > 1 else SagaState.STARTED,
        event_id=new_id(),
        event_type="TripRequested",
        emitted_id=new_id(),
        emitted_type=type(emitted).__name__,
        emitted_body=emitted.model_dump_json(),
        at=datetime.now(UTC) - ago,
    )
    async with world.runtimes[by[0]].database.transaction() as session:
        connection = await session.connection()
        await saga_log.append(connection, [entry])
        # The watchdog's search has passed that time already; only a test writes there.
        await connection.execute(delete(overdue_search.watched))
