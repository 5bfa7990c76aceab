"""A saga for tests of the test kit: a parcel is packed, sent and signed for; and the same saga with planted faults.

The shelf holds as many parcels as were not packed. The carrier is an outside system.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import Event, IdempotencyKey, Participant, Refusal, RetryPolicy, Saga, SagaId, Service
from toolkit.testing import OutsideSystem

#: How many parcels the shelf holds at first.
FULL = 10


class ParcelOrdered(Event, owner="customer"):
    parcel_id: SagaId
    town: str = "Talheim"


class ParcelPacked(Event, owner="shelf"):
    parcel_id: SagaId
    town: str = ""


class ShelfEmpty(Refusal, owner="shelf"):
    parcel_id: SagaId


class ParcelUnpacked(Event, owner="shelf"):
    parcel_id: SagaId
    reason: str = ""


class ParcelSent(Event, owner="carrier"):
    parcel_id: SagaId
    town: str = ""


class ParcelRejected(Refusal, owner="carrier"):
    parcel_id: SagaId


class ParcelCalledBack(Event, owner="carrier", optional=True):
    parcel_id: SagaId
    reason: str = ""


class ParcelSigned(Event, owner="desk", optional=True):
    parcel_id: SagaId


class NotAtHome(Refusal, owner="desk"):
    parcel_id: SagaId


class OrderDropped(Event, owner="desk", optional=True):
    parcel_id: SagaId


parcel_saga = Saga(
    name="parcel",
    id_field="parcel_id",
    starts_with=ParcelOrdered,
    completes_with=ParcelSigned,
    fails_with=OrderDropped,
)
tables = MetaData()


class Base(SQLModel, registry=registry(metadata=tables)):
    """The base of the shelf's tables alone."""


class Shelf(Base, table=True):
    name: str = Field(primary_key=True)
    parcels: int


class Carrier(OutsideSystem):
    async def send(self, key: str) -> bool:
        return await self.perform("send", key, True, refusal=False)

    async def call_back(self, key: str) -> None:
        await self.undo("call_back", key)


class Count:
    """What a process remembers of the shelf."""

    def __init__(self) -> None:
        self.left = FULL


async def fill(session: AsyncSession) -> None:
    if await session.get(Shelf, "A") is None:
        session.add(Shelf(name="A", parcels=FULL))


#: The planted faults, and how a simulation names the violation.
FAULTS = {
    "undone": "every saga ends: pack is left completed in a saga that ended Failed",
    "order": "undone in reverse order: pack was undone without waiting for send",
    "lost update": "are missing on the shelf",
    "new keys": "was sent more than once",
}


def services(fault: str | None = None) -> list[Service]:
    """Return the three services, right or with one of the planted faults."""
    return [
        Service(name="shelf", participants=[_shelf(fault)], tables=tables, seed=fill, provides={Count: _open_count}),
        Service(name="carrier", participants=[_carrier(fault)], provides={Carrier: _open_carrier}),
        Service(name="desk", participants=[_desk(fault)]),
    ]


def _shelf(fault: str | None) -> Participant:
    shelf = Participant("shelf", saga=parcel_saga)

    @shelf.step(timeout=timedelta(minutes=2))
    async def pack(event: ParcelOrdered, session: AsyncSession, count: Count) -> ParcelPacked | ShelfEmpty:
        row = await session.get_one(Shelf, "A")
        left = count.left if fault == "lost update" else row.parcels
        if left == 0:
            return ShelfEmpty(parcel_id=event.parcel_id, reason="the shelf is empty")
        count.left = row.parcels = left - 1
        return ParcelPacked(parcel_id=event.parcel_id, town=event.town)

    if fault == "undone":
        return shelf
    if fault == "order":

        @shelf.compensation(of=pack)
        async def unpack_early(event: ParcelRejected | NotAtHome, session: AsyncSession) -> ParcelUnpacked:
            (await session.get_one(Shelf, "A")).parcels += 1
            return ParcelUnpacked(parcel_id=event.parcel_id, reason=event.reason)
    else:

        @shelf.compensation(of=pack)
        async def unpack(
            event: ParcelRejected | ParcelCalledBack, original: ParcelPacked, session: AsyncSession
        ) -> ParcelUnpacked:
            (await session.get_one(Shelf, "A")).parcels += 1
            return ParcelUnpacked(parcel_id=original.parcel_id, reason=event.reason)

    return shelf


def _carrier(fault: str | None) -> Participant:
    quick = RetryPolicy(attempts=3, first_delay=timedelta(milliseconds=200))
    carrier = Participant("carrier", saga=parcel_saga, retry=quick)

    @carrier.step(timeout=timedelta(minutes=2), external=True)
    async def send(event: ParcelPacked, key: IdempotencyKey, carrier: Carrier) -> ParcelSent | ParcelRejected:
        used = f"{key}:{random.random()}" if fault == "new keys" else key
        if not await carrier.send(used):
            return ParcelRejected(parcel_id=event.parcel_id, reason="the road is closed")
        return ParcelSent(parcel_id=event.parcel_id, town=event.town)

    @carrier.compensation(of=send)
    async def call_back(
        event: NotAtHome, original: ParcelSent | None, key: IdempotencyKey, carrier: Carrier
    ) -> ParcelCalledBack:
        await carrier.call_back(key)
        return ParcelCalledBack(parcel_id=event.parcel_id, reason=event.reason)

    return carrier


def _desk(fault: str | None) -> Participant:
    desk = Participant("desk", saga=parcel_saga)

    @desk.step(timeout=timedelta(minutes=2))
    async def sign(event: ParcelSent) -> ParcelSigned | NotAtHome:
        if event.town == "Hochtal":
            return NotAtHome(parcel_id=event.parcel_id, reason="the customer is away")
        return ParcelSigned(parcel_id=event.parcel_id)

    if fault == "undone":

        @desk.step()
        async def drop_sent(event: ShelfEmpty | ParcelRejected | ParcelCalledBack) -> OrderDropped:
            return OrderDropped(parcel_id=event.parcel_id)
    else:

        @desk.step()
        async def drop(event: ShelfEmpty | ParcelUnpacked) -> OrderDropped:
            return OrderDropped(parcel_id=event.parcel_id)

    return desk


@asynccontextmanager
async def _open_count(_: Any) -> Any:
    yield Count()


@asynccontextmanager
async def _open_carrier(_: Any) -> Any:
    yield Carrier()
