"""Check that nothing is overbooked, and that trips are booked and paid as a whole: `saga verify`, `saga demo travel`.

No reader sees two databases at one moment. So the payments are read before the bookings: what is paid was booked
before, for good.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import and_
from sqlmodel import col, select

from examples.travel.agency.models import ACCOUNTS_FILE, Account, Payment
from examples.travel.events import trip_saga
from examples.travel.reservations import (
    OFFERS_FILE,
    Booking,
    BookingState,
    Offer,
    reservations_url,
)
from toolkit.client.account_checks import CheckResult, SagaStates, reading, settings_beside, url_of
from toolkit.declaration.events import SagaState

#: The steps that book; each trip has one booking of each.
BRANCHES = ("book_car", "book_flight", "book_room")


async def nothing_is_overbooked(databases: Mapping[str, str], _: SagaStates) -> CheckResult:
    """Check that free and booked places add up to the places of each offer, at any moment."""
    offers, bookings = await _held(databases)
    taken = Counter((each.kind, each.name) for each in bookings)
    places = {(each["kind"], each["name"]): each["free"] for each in json.loads(OFFERS_FILE.read_text())}
    left = {(each.kind, each.name): each.free for each in offers}
    faults = [
        f"{' '.join(offer)} has {free} free and {taken[offer]} booked places, of {places[offer]}"
        for offer, free in left.items()
        if free < 0 or free + taken[offer] != places[offer]
    ]
    booked = ", ".join(f"{count} {' '.join(offer)}" for offer, count in sorted(taken.items()))
    found = "; ".join(faults) or f"booked: {booked or 'nothing'}"
    return CheckResult("free and booked places are all places", not faults, found)


async def trips_are_whole(databases: Mapping[str, str], states: SagaStates) -> CheckResult:
    """Check that each paid trip is booked in all branches at its price, and that a failed one holds nothing."""
    balances, payments = await _paid(databases)  # first: what is paid here is booked below
    prices: dict[str, dict[str, int]] = {}
    for booking in (await _held(databases))[1]:
        # A key is saga type, id and step; the id may have colons.
        trip, _, step = booking.key.partition(":")[2].rpartition(":")
        prices.setdefault(trip, {})[step] = booking.price
    faults = [*_wrong_balances(balances, payments.values())]
    for trip, payment in payments.items():
        booked = prices.get(trip, {})
        if sorted(booked) != list(BRANCHES) or sum(booked.values()) != payment.amount:
            faults.append(f"{trip} is paid with {payment.amount}, and its bookings are {booked}")
    for (saga_type, trip), state in states.items():
        is_whole = trip in payments if state is SagaState.COMPLETED else not (trip in payments or trip in prices)
        if saga_type == trip_saga.name and state and not is_whole:
            faults.append(f"{trip} ended {state}; paid: {trip in payments}, its bookings are {prices.get(trip, {})}")
    found = "; ".join(faults) or f"{len(payments)} paid"
    return CheckResult("paid trips are booked in all branches, failed ones in none", not faults, found)


#: The checks that `saga verify` runs beside the toolkit's own invariants; they hold while trips are under way, too.
CHECKS = (nothing_is_overbooked, trips_are_whole)


async def _paid(databases: Mapping[str, str]) -> tuple[dict[str, int], dict[str, Payment]]:
    """Return the balances by traveller and the payments by trip, at one moment."""
    both = select(Account, Payment).join(Payment, isouter=True)
    async with reading(url_of("agency", databases)) as session:
        rows: Sequence[tuple[Any, Any]] = (await session.exec(both)).all()
    return {each.traveller: each.balance for each, _ in rows}, {each.trip_id: each for _, each in rows if each}


def _wrong_balances(balances: Mapping[str, int], payments: Iterable[Payment]) -> Iterator[str]:
    """Yield each account whose balance is not its opening balance less its payments."""
    due = Counter({each["traveller"]: each["balance"] for each in json.loads(ACCOUNTS_FILE.read_text())})
    for payment in payments:
        due[payment.traveller] -= payment.amount
    for traveller, balance in balances.items():
        if balance != due[traveller] or balance < 0:
            yield f"{traveller} has {balance}, and {due[traveller]} is due"


async def _held(databases: Mapping[str, str]) -> tuple[list[Offer], list[Booking]]:
    """Return all offers and all bookings that hold a place, at one moment."""
    url = reservations_url(settings_beside(url_of("agency", databases)))
    is_its_booking = and_(
        col(Booking.kind) == col(Offer.kind),
        col(Booking.name) == col(Offer.name),
        col(Booking.state) == BookingState.BOOKED,
    )
    async with reading(url, variable="RESERVATIONS_URL") as session:
        both = select(Offer, Booking).join(Booking, is_its_booking, isouter=True)
        rows: Sequence[tuple[Any, Any]] = (await session.exec(both)).all()
    offers = {(each.kind, each.name): each for each, _ in rows}
    return list(offers.values()), [each for _, each in rows if each]
