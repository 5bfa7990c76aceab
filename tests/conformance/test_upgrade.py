"""An upgrade of the tables with sagas in flight: each saga goes on in the new tables, and ends."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner, Result

from tests.conformance.operators import redrive, trip_with_a_dead_letter
from tests.conformance.world import RabbitWorld, message
from tests.eventually import eventually
from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.travel import TripRequested
from tests.former_tables import take_prefixes_away
from toolkit.cli.app import app
from toolkit.client import DatabaseClient
from toolkit.client.verification import VerificationReport, verify
from toolkit.clock import SystemClock
from toolkit.declaration.contract import contract_of
from toolkit.errors import SchemaVersionError
from toolkit.persistence import outbox
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime


@pytest.mark.parametrize("world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)
async def test_sagas_in_flight_survive_an_upgrade(world: RabbitWorld) -> None:
    given_up = await trip_with_a_dead_letter(world)
    called = await trip_amid_an_outside_call(world)
    ended = await world.request()
    await eventually(lambda: world.state(ended))
    assert await world.states("flight", called) == ["executing"]
    urls = {name: runtime.database.url for name, runtime in world.runtimes.items()}
    await world.stop()
    unsent = await trip_with_an_unsent_event(world, urls["hotel"])
    await take_all_prefixes_away(urls)

    with pytest.raises(SchemaVersionError, match="`saga db upgrade hotel`"):
        await (await world.app("hotel")).runtime.prepare()
    result = await asyncio.to_thread(upgraded, urls)
    world.script.clear()
    await world.start()
    await redrive(world, "flight")
    await world.quiet()

    assert (result.exit_code, {each["before"] for each in json.loads(result.stdout)}) == (0, {"0001"})
    ends = {trip: await world.state(trip) for trip in (given_up, called, unsent, ended)}
    assert ends == {given_up: "Failed"} | dict.fromkeys((called, unsent, ended), "Completed")
    assert await world.states("flight", called) == ["executing", "completed", "confirmed"]
    assert (await verified(world)).violations == []


async def trip_amid_an_outside_call(world: RabbitWorld) -> str:
    """Start a trip whose flight is being booked: the airline answers after the upgrade."""
    world.script.always("book_flight", asyncio.Event().wait, "trip-called")
    trip = await world.request("trip-called")
    await eventually(lambda: world.states("flight", trip), what="the call")
    return trip


async def trip_with_an_unsent_event(world: RabbitWorld, url: str) -> str:
    """Book a trip's room with a broker that is away: the event of the room stays in the hotel's outbox."""
    hotel = next(each for each in world.services if each.name == "hotel")
    settings = world.settings.model_copy(update={"database_url": url})
    publisher = RecordingPublisher()
    publisher.will(*[no_broker] * 100)
    runtime = ServiceRuntime(hotel, settings, publisher, clock=SystemClock())
    await runtime.start()
    await runtime.batcher.deliver(message(TripRequested(trip_id="trip-unsent"), "trip-unsent"))
    await runtime.stop()
    database = Database(url)
    async with database.reading() as connection:
        assert "trip-unsent" in {each.saga_id for each in await outbox.listed(connection)}
    await database.close()
    return "trip-unsent"


async def no_broker(_: object) -> None:
    raise ConnectionError


async def take_all_prefixes_away(urls: dict[str, str]) -> None:
    for url in urls.values():
        database = Database(url)
        await take_prefixes_away(database)
        await database.close()


def upgraded(urls: dict[str, str]) -> Result:
    """Run `saga db upgrade` as an operator does."""
    named = [f"--service={name}={url}" for name, url in urls.items()]
    return CliRunner().invoke(app, ["db", "upgrade", *urls, *named, "-o", "json"])


async def verified(world: RabbitWorld) -> VerificationReport:
    clients = [
        DatabaseClient(
            each.name,
            world.runtimes[each.name].database.url,
            contract=lambda service=each: contract_of(service, world.settings),
        )
        for each in world.services
    ]
    try:
        return await verify(clients)
    finally:
        for client in clients:
            await client.close()
