"""All replicas of a service are killed while a join gathers: what has arrived is in the log, and the join runs once."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import PostgresDatabases
from tests.end_to_end.crash_matrix import PATIENCE, becomes_right, open_fleet, send_signal
from tests.end_to_end.crash_shapes import ANSWERS, JOINS, Placed, Shape
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.eventually import eventually
from tests.servers import Server

#: Processes are started twice, which takes a busy machine long.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(params=["sqlite", "postgresql"])
async def urls(request: pytest.FixtureRequest, tmp_path: Path, shape: Shape) -> AsyncIterator[dict[str, str]]:
    files = sqlite_databases(tmp_path, shape.services)
    if request.param == "sqlite":
        yield files
        return
    databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
    yield {name: await databases.url(name) for name in files}


@pytest.fixture
async def fleet(
    rabbitmq: Server, tmp_path: Path, shape: Shape, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet]:
    """The services of the shape, running."""
    monkeypatch.setenv("RESERVATIONS_URL", f"sqlite:///{tmp_path}/reservations.db")
    async with open_fleet("gathering", rabbitmq.url, tmp_path, urls, shape=shape) as fleet:
        yield fleet


async def gathered(fleet: Fleet, service: str, placed: Sequence[Placed]) -> set[int]:
    """Return how many events have arrived at the joins of these sagas."""
    states = [[each.to_state for each in await fleet.clients[service].entries(saga.saga_id)] for saga in placed]
    return {each.count("gathering") for each in states}


async def killed_while_gathering(fleet: Fleet, service: str, placed: Sequence[Placed], *, arrived: int) -> None:
    """Start a second replica and these sagas, and kill both replicas once so many events have arrived at each join."""
    await fleet.start(service)
    for saga in placed:
        await fleet.place(saga.events, saga_id=saga.saga_id)

    async def have_arrived() -> bool:
        return await gathered(fleet, service, placed) == {arrived}

    await eventually(have_arrived, within=PATIENCE, what="the joins gather")
    for _ in range(2):
        await fleet.kill(service)
    assert await gathered(fleet, service, placed) == {arrived}
    await fleet.start(service, service)


async def completions(fleet: Fleet, service: str, step: str, placed: Sequence[Placed]) -> list[int]:
    """Return how often the step has completed in each saga."""
    logs = [await fleet.clients[service].entries(saga.saga_id) for saga in placed]
    return [sum(each.step == step and each.to_state == "completed" for each in entries) for entries in logs]


@pytest.mark.parametrize("shape", [JOINS], ids=["joins"])
async def test_a_join_survives_the_death_of_all_replicas(fleet: Fleet, shape: Shape) -> None:
    trips = [shape.place(f"trip-{number}", {}) for number in range(3)]
    send_signal(fleet, "car_rental", signal.SIGSTOP)
    try:
        await killed_while_gathering(fleet, "agency", trips, arrived=3)
    finally:
        send_signal(fleet, "car_rental", signal.SIGCONT)

    await becomes_right(fleet, shape, trips)
    assert await completions(fleet, "agency", "pay_trip", trips) == [1, 1, 1]


@pytest.mark.parametrize("shape", [ANSWERS], ids=["answers"])
async def test_an_open_question_survives_all_replicas(fleet: Fleet, shape: Shape) -> None:
    purchases = [shape.place(f"desk-{number}", {"late": True}) for number in range(3)]

    await killed_while_gathering(fleet, "desk", purchases, arrived=1)
    for purchase in purchases:
        await fleet.place(purchase.later, saga_id=purchase.saga_id)

    await becomes_right(fleet, shape, purchases)
    assert await completions(fleet, "desk", "decide", purchases) == [1, 1, 1]
