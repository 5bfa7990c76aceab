"""Two replicas take the last events of a join at once: it runs once, in every round."""

from __future__ import annotations

import asyncio
from collections import Counter

from sqlalchemy import text

from tests.eventually import eventually
from tests.example_sagas.loan_rows import log_of
from tests.example_sagas.parallel_trip import CarBooked, FlightBooked, RoomBooked
from tests.example_sagas.travel import Script
from tests.races import patience, races
from tests.unit.runtime.holidays import paid, payments
from toolkit import Event
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

#: Each round has another trip; a lost join shows within the first few.
ROUNDS = races(60)


def wire(event: Event, trip_id: str, clock: ManualClock) -> WireMessage:
    kind = type(event)
    event_id = derived_id("holiday", trip_id, kind.__name__)
    return Envelope.of(kind, event_id=event_id, saga=("holiday", trip_id), occurred_at=clock.now()).carry(event)


@patience(ROUNDS)
async def test_two_last_arrivals_at_once_run_the_join_once(database: Database, clock: ManualClock) -> None:
    one, two = [await payments(database, Script(), clock) for _ in range(2)]
    async with one.open(), two.open():
        for number in range(ROUNDS):
            trip = f"trip-{number}"
            await one.batcher.deliver(wire(RoomBooked(trip_id=trip, price=1), trip, clock))
            await asyncio.gather(
                one.batcher.deliver(wire(FlightBooked(trip_id=trip, price=1), trip, clock)),
                two.batcher.deliver(wire(CarBooked(trip_id=trip, price=1), trip, clock)),
                two.batcher.deliver(wire(FlightBooked(trip_id=trip, price=1), trip, clock)),
            )

    for number in range(ROUNDS):
        entries = await log_of(database, f"trip-{number}")
        assert [each.to_state for each in entries] == ["gathering", "gathering", "completed"], number
    assert Counter(await paid(database)) == {"3 paid": ROUNDS}


async def test_arrivals_that_miss_each_other_are_joined(postgres: Database, clock: ManualClock) -> None:
    one, two = [await payments(postgres, Script(), clock) for _ in range(2)]
    room, flight, car = (
        wire(event(trip_id="trip-1", price=1), "trip-1", clock) for event in (RoomBooked, FlightBooked, CarBooked)
    )
    async with one.open(), two.open():
        await one.batcher.deliver(room)
        async with postgres.engine.begin() as blocker:
            await blocker.execute(text("LOCK TABLE saga_log IN EXCLUSIVE MODE"))  # it can be read, and not written
            arrivals = asyncio.gather(one.batcher.deliver(flight), two.batcher.deliver(car))
            await eventually(lambda: both_wait(postgres), what="two replicas that have read, and are to write")
        await arrivals

    entries = await log_of(postgres, "trip-1")
    assert [each.to_state for each in entries] == ["gathering", "gathering", "completed"]
    assert await paid(postgres) == ["3 paid"]


async def both_wait(database: Database) -> bool:
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'saga_log'::regclass")
    async with database.reading() as connection:
        return await connection.scalar(query) == 2
