"""While a question is open, no replica of any service takes the saga for overdue; the decision starts the watch again.

Over RabbitMQ, with two replicas of each service: an announcement comes to one of them, and both read their database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import func, select

from tests.conformance.conftest import ABORT_AFTER
from tests.conformance.test_answers import asked, given
from tests.conformance.world import RabbitWorld
from tests.eventually import eventually
from tests.example_sagas.approval import Approved, Declined
from toolkit.app import App
from toolkit.persistence.saga_waits import waits

#: Longer than both settings of the watch: without the announcement the saga is aborted by then.
OPEN_FOR = ABORT_AFTER.total_seconds() + 2


@asynccontextmanager
async def second_replicas(world: RabbitWorld) -> AsyncIterator[list[App]]:
    """Run one more replica of each service within the block."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(world.replica(service.name)) for service in world.services]


async def notes(world: RabbitWorld) -> dict[str, list[str]]:
    return {service.name: await world.notes(service.name, "desk-1") for service in world.services}


async def is_announced(world: RabbitWorld) -> bool:
    """Whether each service knows that the saga waits."""
    for runtime in world.runtimes.values():
        async with runtime.database.reading() as connection:
            if not await connection.scalar(select(func.count()).select_from(waits)):
                return False
    return True


async def stay_open(world: RabbitWorld, second: list[App]) -> None:
    """Leave the question open for longer than the watch waits, and let each replica look for overdue sagas."""
    await asked(world)
    await eventually(lambda: is_announced(world))
    before = await notes(world)

    await asyncio.sleep(OPEN_FOR)
    for app in (*world.apps, *second):
        await app.runtime.watchdog.sweep()

    assert await notes(world) == before
    assert await world.states("desk", "desk-1") == ["gathering"]


async def test_no_replica_aborts_while_a_question_is_open(impatient: RabbitWorld) -> None:
    async with second_replicas(impatient) as second:
        await stay_open(impatient, second)

        await given(impatient, Approved(purchase_id="desk-1"))
        await eventually(lambda: impatient.state("desk-1"))
        await impatient.quiet()

    assert await impatient.state("desk-1") == "Completed"
    assert await impatient.states("quotes", "desk-1") == ["completed", "confirmed"]
    assert await impatient.effects("buyer", "desk-1") == ["ordered"]


async def test_a_late_refusal_undoes_the_other_services(impatient: RabbitWorld) -> None:
    async with second_replicas(impatient) as second:
        await stay_open(impatient, second)

        await given(impatient, Declined(purchase_id="desk-1", why="too dear"))
        await eventually(lambda: impatient.state("desk-1"))
        await impatient.quiet()

    assert await impatient.state("desk-1") == "Failed"
    assert await impatient.effects("quotes", "desk-1") == ["quoted", "withdrawn"]


async def test_the_watch_resumes_once_a_question_is_answered(impatient: RabbitWorld) -> None:
    world = impatient
    (buyer,) = [app for app in world.apps if app.service.name == "buyer"]
    await asked(world)
    await eventually(lambda: is_announced(world))
    await buyer.stop()
    world.apps.remove(buyer)

    await given(world, Approved(purchase_id="desk-1"))

    async def is_overdue() -> bool:
        return "overdue" in await world.notes("quotes", "desk-1")

    await eventually(is_overdue)
    async with world.replica("buyer") as restarted:
        world.runtimes["buyer"] = restarted.runtime
        await eventually(lambda: world.state("desk-1"))
        assert await world.effects("buyer", "desk-1") == ["ordered"]
    assert await world.state("desk-1") == "Completed"
