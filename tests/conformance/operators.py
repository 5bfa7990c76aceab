"""An operator's changes, and the sagas that they are made to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from tests.conformance.world import RabbitWorld, World
from tests.eventually import eventually
from toolkit.declaration.events import SagaState
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations import sagas
from toolkit.operations.outcomes import BatchResult
from toolkit.persistence import audit_log, dead_letters, saga_log
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import DeadLetter, Selection
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import StepState
from toolkit.runtime import pruner

ADA = Operator("ada@desk", "the airline is back")


ALL = Selection()


MONTH = timedelta(days=30)


#: For tests of the broker itself; tests/cli covers an abort of embedded services, which runs them.
with_a_broker = pytest.mark.parametrize("world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)


async def trip_with_a_dead_letter(world: World) -> str:
    """Start a trip that is refused at its end and whose flight can't be cancelled: a dead letter remains."""
    trip = f"trip-{new_id()[-12:]}"
    world.script.always("issue_ticket", "refuse", trip)
    world.script.always("cancel_flight", ConnectionError("airline away"), trip)
    await world.request(trip)
    await eventually(lambda: world.dead_letters("flight"))
    await world.quiet()
    world.script.clear()
    assert await world.state(trip) is None
    assert await world.states("hotel", trip) == ["completed"]
    return trip


async def restart(world: World, **changes: Any) -> None:
    await world.stop()
    world.settings = world.settings.model_copy(update=changes)
    await world.start()


async def redrive(world: World, service: str, **facts: Any) -> BatchResult:
    runtime = world.runtimes[service]
    return await dead_letter_operations.redrive(
        runtime.database, ALL, ADA, queue=runtime.queue, now=datetime.now(UTC), **facts
    )


async def replay(world: World, trip: str, *services: str) -> None:
    for name in services or world.runtimes:
        runtime = world.runtimes[name]
        await sagas.replay(runtime.database, runtime.service, trip, ADA, now=datetime.now(UTC))


async def prune(world: World, service: str, **facts: Any) -> pruner.Pruned:
    database = world.runtimes[service].database
    return await pruner.prune(database, older_than=MONTH, now=datetime.now(UTC), **facts)


async def grow_old(world: World) -> None:
    """Make all rows forty days older."""
    past = timedelta(days=40)
    for runtime in world.runtimes.values():
        async with runtime.database.transaction() as session:
            connection = await session.connection()
            for table, names in ((saga_log.saga_log, ("at",)), (dead_letters.dead_letters, ("first_at", "last_at"))):
                for row in (await connection.execute(select(table))).all():
                    earlier = {name: getattr(row, name) - past for name in names}
                    await connection.execute(update(table).where(table.c.id == row.id).values(earlier))


async def store_dead_letters(world: World, service: str, *wires: WireMessage, reason: str = "schema") -> None:
    now = datetime.now(UTC)
    stored = [
        DeadLetter(id=new_id(), service=service, reason=reason, error="no passenger", message=wire, at=now)
        for wire in wires
    ]
    async with world.runtimes[service].database.transaction() as session:
        await dead_letters.add(await session.connection(), stored)


async def write(world: World, service: str, entry: Entry) -> None:
    async with world.runtimes[service].database.transaction() as session:
        await saga_log.append(await session.connection(), [entry])


def completed(service: str, step: str, emitted: Any, *, saga_state: SagaState = SagaState.STARTED) -> Entry:
    """Return the log entry of a step whose event, or whose saga's end, was lost."""
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
    return [(row.actor, row.verb, row.reason, row.saga_id) for row in rows]


async def everything(world: World, trip: str) -> dict[str, Any]:
    return {name: (await world.states(name, trip), await world.effects(name, trip)) for name in world.runtimes}


async def all_apologized(world: World, count: int) -> bool:
    async with world.runtimes["desk"].database.reading() as connection:
        count_of_apologies = await connection.scalar(text("SELECT count(*) FROM effects WHERE what = 'apologized'"))
    return count_of_apologies == count


async def nothing_left(world: World, trip: str) -> bool:
    return not any([await world.log(name, trip) for name in world.runtimes])


async def is_empty(world: RabbitWorld, queue: str) -> bool:
    return not await world.depth(queue)
