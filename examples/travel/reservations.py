"""A sandbox that simulates a reservation system for rooms, seats and cars, outside the services' transactions.

One key is one booking, even if calls are lost, repeated or concurrent: each call is one transaction, and all services
and replicas share the rows. The offer decides what a booking does:

| offer | a booking |
|---|---|
| one in `offers.json` | takes a free place, or is refused if there is none |
| `SLOW` | takes a place, and answers long after the caller's timeout |
| `DOWN` | always fails; a cancellation works |
| any other | is refused |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field as Setting
from pydantic_settings import SettingsConfigDict
from sqlalchemy import CheckConstraint, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import registry
from sqlmodel import AutoString, Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import Settings
from toolkit.configuration.environment import FromEnvironment, read_settings
from toolkit.configuration.server_urls import DatabaseUrl
from toolkit.configuration.settings import LONGEST_WAIT, Duration
from toolkit.errors import UnreachableError
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.schema import create_tables, insert_into

metadata = MetaData()

#: The offers, their places and their prices in minor units.
OFFERS_FILE = Path(__file__).with_name("offers.json")


class ReservationsUnavailableError(Exception):
    """The reservation system did not answer, so the outcome is unknown; call again with the same key, or cancel it."""


class ReservationSettings(FromEnvironment):
    """The sandbox's settings, from `RESERVATIONS_…`."""

    model_config = SettingsConfigDict(env_prefix="RESERVATIONS_")

    url: DatabaseUrl | None = Setting(
        None, description="sqlite:///path, or postgresql://user:password@host:port/database"
    )
    """Its database's URL, `sqlite:///path` or `postgresql://…`; if unset, `reservations.db` in the data directory."""
    slowness: Annotated[Duration, Setting(ge=timedelta(0), le=LONGEST_WAIT)] = timedelta(seconds=120)
    """The time until `SLOW` answers, in seconds."""


class BookingState(StrEnum):
    """The state of a booking; only an open one can still take a place."""

    OPEN = "open"
    BOOKED = "booked"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of the reservation system's tables alone."""


class Offer(Base, table=True):
    """What can be booked: a hotel's rooms, a flight's seats, a class of cars; `free` places are left."""

    __table_args__ = (CheckConstraint("free >= 0", name="offer_is_not_overbooked"),)

    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    free: int
    price: int


class Booking(Base, table=True):
    """One place of an offer, taken under one key, and why if it is not."""

    key: str = Field(primary_key=True)
    kind: str = ""
    name: str = ""
    price: int = 0
    state: BookingState = Field(default=BookingState.OPEN, sa_type=AutoString)
    reason: str = ""

    def take(self, offer: Offer | None, name: str) -> None:
        """Take a place, or refuse if there is no such offer or no place left."""
        if offer is None or offer.free == 0:
            self.state = BookingState.REFUSED
            self.reason = f"{name} is fully booked" if offer else f"there is no {name}"
            return
        offer.free -= 1
        self.kind, self.name, self.price, self.state = offer.kind, offer.name, offer.price, BookingState.BOOKED


class Reservations:
    """The reservation system's interface: an idempotency key identifies a booking."""

    def __init__(self, database: Database, *, slowness: timedelta) -> None:
        self._database = database
        self._slowness = slowness

    async def book(self, key: str, kind: str, name: str) -> Booking:
        """Take a place of this offer, once per key, and return the booking, or the one that was refused or cancelled.

        Raises:
            ReservationsUnavailableError: no answer, so the outcome is unknown.
        """
        if name == "DOWN":
            raise ReservationsUnavailableError(f"the call to book {key} failed; repeat it")
        async with self._locked(key) as (session, booking):
            if booking.state == BookingState.OPEN:
                booking.take(await session.get(Offer, (kind, name), with_for_update=True), name)
        if name == "SLOW":
            # Only now, with the place taken: the caller who gave up can't know the outcome.
            await asyncio.sleep(self._slowness.total_seconds())
        return booking

    async def cancel(self, key: str) -> None:
        """Free the place if one was taken, and prevent that one is taken later."""
        async with self._locked(key) as (session, booking):
            if booking.state == BookingState.BOOKED:
                offer = await session.get_one(Offer, (booking.kind, booking.name), with_for_update=True)
                offer.free += 1
            booking.state, booking.reason = BookingState.CANCELLED, "the booking was cancelled"

    @asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[tuple[AsyncSession, Booking]]:
        """Insert the booking if it is new, lock its row, and write all changes at the end."""
        async with self._database.transaction() as session:
            connection = await session.connection()
            new = insert_into(metadata.tables["booking"], connection).values(Booking(key=key).model_dump())
            await connection.execute(new.on_conflict_do_nothing())
            yield session, await session.get_one(Booking, key, with_for_update=True)


def reservations_url(settings: Settings) -> str:
    """Return its database's URL: as `RESERVATIONS_URL` has it, or of a file in the data directory."""
    return read_settings(ReservationSettings).url or f"sqlite:///{settings.data_dir / 'reservations.db'}"


@asynccontextmanager
async def open_reservations(settings: Settings) -> AsyncIterator[Reservations]:
    """Open the sandbox on its database; `RESERVATIONS_URL` lets services on several machines share one.

    Raises:
        SettingsError: a setting is not allowed.
        UnreachableError: the database does not answer.
    """
    database = Database(reservations_url(settings))
    try:
        try:
            async with database.engine.begin() as connection:
                await create_tables(connection, metadata)
                offers = json.loads(OFFERS_FILE.read_text())
                await connection.execute(
                    insert_into(metadata.tables["offer"], connection).on_conflict_do_nothing(), offers
                )
        except (DBAPIError, OSError) as error:
            raise UnreachableError(
                f"the database at RESERVATIONS_URL can't be used: {describe_fault(error)}"
            ) from error
        yield Reservations(database, slowness=read_settings(ReservationSettings).slowness)
    finally:
        await database.close()
