"""The trip over RabbitMQ, with many trips at once; and its checks, which detect bookings and money that are lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from examples.travel.accounts import CHECKS, nothing_is_overbooked, trips_are_whole
from examples.travel.events import TripRequested
from tests.examples.damaged import checked_after
from tests.examples.demos import DEMOS
from tests.examples.running import Running
from toolkit.cli.demonstration import Demo
from toolkit.client.account_checks import AccountCheck
from toolkit.declaration.events import SagaState
from toolkit.errors import UnreachableError
from toolkit.testing import SagaWorld

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED
SERVICES = DEMOS["travel"].services


@pytest.fixture
def demo() -> Demo:
    return DEMOS["travel"]


def trip(trip_id: str, traveller: str = "ADA", car: str = "COMPACT") -> TripRequested:
    return TripRequested(trip_id=trip_id, traveller=traveller, hotel="PLAZA", flight="SKY-7", car=car)


async def test_concurrent_trips_share_the_last_car_once(running: Running):
    # Of the class LAST there is one car, of the class FULL none.
    trips = [trip(f"{kind}-{number}", car=kind) for number in range(4) for kind in ("COMPACT", "LAST", "FULL")]

    async with running.checked() as checks:
        await asyncio.gather(*(running.send(each.trip_id, each) for each in (*trips, *trips)))
        timelines = await running.ended(*(each.trip_id for each in trips))

    states = Counter((saga_id.rpartition("-")[0], str(each.state)) for saga_id, each in timelines.items())
    assert states == {("COMPACT", COMPLETED): 4, ("LAST", COMPLETED): 1, ("LAST", FAILED): 3, ("FULL", FAILED): 4}
    assert await running.violations() == []
    assert checks.runs > 0
    assert [each for each in await checks.results({}) if not each.holds] == []


@pytest.fixture
def databases(saga_world: type[SagaWorld], tmp_path: Path) -> dict[str, str]:
    """The databases after a completed trip, whose id has a colon, and one that can't be paid."""
    world = saga_world(*SERVICES, directory=tmp_path)
    world.when(trip("paid:ada"), trip("broke", "BROKE"))
    return world.databases | {"reservations": f"sqlite:///{tmp_path}/reservations.db"}


STATES = {("trip", "paid:ada"): COMPLETED, ("trip", "broke"): FAILED}


async def test_checks_hold_and_show_their_figures(databases):
    results = [await check(databases, STATES) for check in CHECKS]

    assert [(each.holds, each.found) for each in results] == [
        (True, "booked: 1 car COMPACT, 1 flight SKY-7, 1 hotel PLAZA"),
        (True, "1 paid"),
    ]


@pytest.mark.parametrize(
    ("check", "service", "fault", "found"),
    [
        (
            nothing_is_overbooked,
            "reservations",
            "UPDATE offer SET free = free + 1 WHERE name = 'PLAZA'",
            "hotel PLAZA has 1000 free and 1 booked places, of 1000",
        ),
        (
            trips_are_whole,
            "reservations",
            "UPDATE booking SET state = 'cancelled' WHERE name = 'PLAZA'",
            "paid:ada is paid with 62000, and its bookings are {'book_car': 12000, 'book_flight': 20000}",
        ),
        (
            trips_are_whole,
            "reservations",
            "UPDATE booking SET state = 'booked' WHERE key LIKE '%broke:book_car'",
            "broke ended Failed; paid: False, its bookings are {'book_car': 12000}",
        ),
        (
            trips_are_whole,
            "agency",
            "DELETE FROM payment",
            "ADA has 99938000, and 100000000 is due; paid:ada ended",
        ),
        (trips_are_whole, "agency", "UPDATE account SET balance = 0 WHERE traveller = 'BROKE'", "BROKE has 0"),
    ],
)
async def test_checks_detect_what_is_lost_or_sold_twice(
    databases: dict[str, str], check: AccountCheck, service: str, fault: str, found: str
):
    result = await checked_after(fault, check, databases, service, STATES)

    assert not result.holds
    assert found in result.found


@pytest.mark.parametrize("check", CHECKS)
async def test_missing_databases_are_reported(databases, check, tmp_path):
    (tmp_path / "reservations.db").unlink()

    with pytest.raises(UnreachableError, match="RESERVATIONS_URL"):
        await check(databases, {})


async def test_agency_without_its_database_is_reported(databases):
    del databases["agency"]

    with pytest.raises(UnreachableError, match="name agency by its database"):
        await trips_are_whole(databases, {})
