"""Trips under drawn faults: bookings follow each trip's end, and a reservation system that forgets keys is found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.travel.agency import app as agency
from examples.travel.airline import app as airline
from examples.travel.car_rental import app as car_rental
from examples.travel.events import TripRequested
from examples.travel.hotel import app as hotel
from examples.travel.reservations import Reservations
from tests.docs.pages import DOCS, blocks
from tests.examples.fake_reservations import FakeReservations
from toolkit.testing import SimulatedSagas, sample, simulate

SERVICES = [hotel, airline, car_rental, agency]
TRIPS = [sample(TripRequested, trip_id="paid"), sample(TripRequested, trip_id="broke", traveller="BROKE")]


def bookings_follow_the_trips(sagas: SimulatedSagas) -> Iterator[str]:
    reservations = sagas.provided(Reservations)
    reservations.assert_one_effect_per_key()
    for (_, trip), state in sagas.states.items():
        booked = [key for key in reservations.standing if key.startswith(f"trip:{trip}:")]
        if len(booked) != (3 if state == "Completed" else 0):
            yield f"{trip} ended {state}, and has {booked or 'no bookings'}"


def test_trips_are_whole_under_every_seed(saga_simulation):
    saga_simulation(
        range(25), SERVICES, TRIPS, provides={Reservations: FakeReservations}, check=bookings_follow_the_trips
    )


def test_a_system_that_forgets_its_keys_is_found():
    forgetful = {Reservations: lambda: FakeReservations(knows_keys=False)}

    with pytest.raises(AssertionError) as failure:
        simulate(range(50), SERVICES, TRIPS, provides=forgetful, check=bookings_follow_the_trips)

    (shown,) = blocks("text", DOCS / "how-to" / "test-a-saga.md")
    assert str(failure.value).startswith(shown.text.replace("…\n", "")[:-1])
