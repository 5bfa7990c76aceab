"""Trips in a world: what each service does when another one refuses, is late, or does not answer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from examples.travel.agency import app as agency
from examples.travel.agency.models import Account, Payment
from examples.travel.airline import app as airline
from examples.travel.car_rental import app as car_rental
from examples.travel.events import (
    CarBooked,
    CarRefused,
    FlightBooked,
    FlightCancelled,
    FlightRefused,
    PaymentRefused,
    RoomBooked,
    TripCalledOff,
    TripPaid,
    TripRequested,
)
from examples.travel.hotel import app as hotel
from examples.travel.reservations import Reservations
from tests.examples.fake_reservations import FakeReservations
from toolkit.testing import Outcome, SagaWorld, sample

TRIP = sample(TripRequested, trip_id="trip-1")


@pytest.fixture
def reservations() -> FakeReservations:
    return FakeReservations()


@pytest.fixture
def world(saga_world: type[SagaWorld], reservations: FakeReservations) -> SagaWorld:
    return saga_world(hotel, airline, car_rental, agency, provides={Reservations: reservations})


def test_a_trip_is_booked_and_paid(world):
    world.when(TRIP)

    world.then.completed()
    world.then.states(book_room="confirmed", book_flight="confirmed", book_car="confirmed", pay_trip="confirmed")
    world.then.emitted(TripPaid(trip_id="trip-1", total=62000))
    world.then.rows(Account, {"balance": 100000000 - 62000}, traveller="ADA")


def test_a_full_flight_undoes_room_and_car(world, reservations):
    reservations.plan("book", Outcome.REFUSES, step="book_flight")

    world.when(TRIP)

    world.then.failed(reason="SKY-7 is fully booked")
    world.then.compensated({"book_room", "book_car"})
    world.then.rows(Payment)
    reservations.assert_nothing_stands()


def test_two_refusals_undo_the_third_branch(world, reservations):
    reservations.plan("book", Outcome.REFUSES, step="book_flight")
    reservations.plan("book", Outcome.REFUSES, step="book_car")

    world.when(TRIP)

    world.then.failed().compensated("book_room").emitted(FlightRefused, CarRefused).not_emitted(FlightCancelled)


def test_a_traveller_without_money_gets_nothing(world, reservations):
    world.given(Account(traveller="ADA", balance=61999))

    world.when(TRIP)

    world.then.failed().emitted(PaymentRefused, TripCalledOff)
    world.then.compensated({"book_room", "book_flight", "book_car"})
    world.then.rows(Account, {"balance": 61999}, traveller="ADA")
    reservations.assert_nothing_stands()


def test_a_lost_answer_is_asked_for_again(world, reservations):
    reservations.plan("book", Outcome.FAILS_AFTER, Outcome.FAILS_AFTER, step="book_room")

    world.when(TRIP)
    world.then.states(book_room="executing")
    world.when.skip(timedelta(seconds=2))

    world.then.completed()
    reservations.assert_one_effect_per_key()


def test_a_silent_hotel_is_voided_after_its_timeout(world, reservations):
    reservations.plan("book", Outcome.NO_ANSWER_AFTER, step="book_room")

    world.when(TRIP)
    world.when.skip(timedelta(seconds=29))
    world.then.states(book_room="executing", pay_trip="gathering")
    world.when.skip(timedelta(seconds=2))

    world.then.failed(reason="the external call took longer").compensated({"book_flight", "book_car"})
    reservations.assert_nothing_stands()


def test_the_payment_waits_ten_minutes_for_bookings(saga_world):
    world = saga_world(agency)

    world.given(TRIP, RoomBooked(trip_id="trip-1", price=30000), FlightBooked(trip_id="trip-1", price=20000))
    world.when.skip(timedelta(minutes=10))

    world.then.states(pay_trip="failed").emitted(PaymentRefused)
    world.when(CarBooked(trip_id="trip-1", price=12000))
    world.then.states(pay_trip="failed").not_emitted(TripPaid)


def test_the_hotel_is_tested_beside_played_services(saga_world, reservations):
    world = saga_world(hotel, played=[airline, car_rental, agency], provides={Reservations: reservations})
    world.given.refuses("book_flight")

    world.when(TRIP)

    world.then.failed().compensated({"book_room", "book_car"})
    assert [each.operation for each in reservations.calls] == ["book", "cancel"]


def test_a_trip_sent_twice_is_paid_once(world, reservations):
    world.when(TRIP, TRIP)

    world.then.completed().rows(Payment, {"trip_id": "trip-1", "amount": 62000})
    assert len(reservations.calls) == 3


def test_an_aborted_trip_is_called_off(world, reservations):
    reservations.plan("book", Outcome.FAILS, step="book_car")

    world.when(TRIP)
    world.when.abort("trip-1", reason="the traveller is ill")
    world.when.skip(timedelta(minutes=1))

    world.then.failed(reason="the traveller is ill")
    reservations.assert_nothing_stands()
