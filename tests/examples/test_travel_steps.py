"""The trip's payment and its reservation system on their own, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlmodel import select

from examples.travel.agency.models import Account, Payment, metadata, seed_accounts
from examples.travel.agency.steps import call_off, pay_trip
from examples.travel.events import (
    CarBooked,
    CarCancelled,
    FlightBooked,
    FlightRefused,
    PaymentRefused,
    RoomBooked,
    RoomCancelled,
    TripCalledOff,
    TripPaid,
    TripRequested,
)
from examples.travel.reservations import Offer, Reservations, ReservationsUnavailableError, open_reservations
from toolkit import Settings
from toolkit.client.account_checks import reading
from toolkit.persistence.step_session import StepSession
from toolkit.testing import run_step, step_session

KEY = "trip:trip-1:book_room"


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[StepSession]:
    async with step_session(metadata, seed=seed_accounts, url=database_url) as session:
        yield session


def requested(traveller: str) -> TripRequested:
    return TripRequested(trip_id="trip-1", traveller=traveller, hotel="PLAZA", flight="SKY-7", car="COMPACT")


BOOKED = (
    RoomBooked(trip_id="trip-1", price=30000),
    FlightBooked(trip_id="trip-1", price=20000),
    CarBooked(trip_id="trip-1", price=12000),
)


async def test_payment_takes_the_price_of_all_three(session):
    result = await run_step(pay_trip, requested("ADA"), *BOOKED, session=session)

    assert result == TripPaid(trip_id="trip-1", total=62000)
    assert (await session.get_one(Account, "ADA", populate_existing=True)).balance == 100000000 - 62000


@pytest.mark.parametrize("traveller", ["BROKE", "NO-SUCH"])
async def test_a_traveller_without_the_money_is_refused(session, traveller):
    result = await run_step(pay_trip, requested(traveller), *BOOKED, session=session)

    assert isinstance(result, PaymentRefused)
    assert (await session.exec(select(Payment))).all() == []


async def test_a_trip_is_called_off_with_each_reason_once():
    room, car = (kind(trip_id="trip-1", reason="SKY-7 is fully booked") for kind in (RoomCancelled, CarCancelled))

    result = await run_step(call_off, room, FlightRefused(trip_id="trip-1", reason="SKY-7 is fully booked"), car)

    assert result == TripCalledOff(trip_id="trip-1", reason="SKY-7 is fully booked")


@pytest.fixture
async def reservations(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Reservations]:
    monkeypatch.setenv("RESERVATIONS_URL", database_url)
    monkeypatch.setenv("RESERVATIONS_SLOWNESS", "3600")
    async with open_reservations(Settings(data_dir=tmp_path)) as reservations:
        yield reservations


async def free(url: str, kind: str, name: str) -> int:
    async with reading(url) as session:
        return (await session.get_one(Offer, (kind, name))).free


async def test_ten_concurrent_calls_take_one_place(reservations, database_url):
    results = await asyncio.gather(*(reservations.book(KEY, "hotel", "PLAZA") for _ in range(10)))

    assert {(each.state, each.price) for each in results} == {("booked", 30000)}
    assert await free(database_url, "hotel", "PLAZA") == 999


async def test_the_last_place_is_taken_once(reservations, database_url):
    results = await asyncio.gather(*(reservations.book(f"trip:{n}:book_car", "car", "LAST") for n in range(10)))

    assert sorted(each.state for each in results) == ["booked", *["refused"] * 9]
    assert {each.reason for each in results} == {"", "LAST is fully booked"}
    assert await free(database_url, "car", "LAST") == 0


async def test_an_unknown_offer_is_refused_by_name(reservations):
    assert (await reservations.book(KEY, "hotel", "RUIN")).reason == "there is no RUIN"


async def test_a_cancelled_place_is_free_again_once(reservations, database_url):
    await reservations.book(KEY, "hotel", "PLAZA")

    await asyncio.gather(reservations.cancel(KEY), reservations.cancel(KEY))

    assert await free(database_url, "hotel", "PLAZA") == 1000
    assert (await reservations.book(KEY, "hotel", "PLAZA")).reason == "the booking was cancelled"


async def test_a_cancellation_works_while_bookings_fail(reservations):
    with pytest.raises(ReservationsUnavailableError):
        await reservations.book(KEY, "hotel", "DOWN")

    await reservations.cancel(KEY)

    assert (await reservations.book(KEY, "hotel", "PLAZA")).state == "cancelled"


async def test_a_slow_booking_takes_its_place_before_answering(reservations, database_url):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await reservations.book(KEY, "hotel", "SLOW")

    assert await free(database_url, "hotel", "SLOW") == 999
