"""A service of one saga for `saga run --workers`: each parcel's row names the process that handled it."""

from __future__ import annotations

import json
import os

from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import Event, Participant, Refusal, Saga, SagaId, Service
from toolkit.messaging.envelope import WireMessage


class ParcelBrought(Event, owner="customer"):
    parcel_id: SagaId


class ParcelWeighed(Event, owner="depot"):
    parcel_id: SagaId


class ParcelStored(Event, owner="depot", optional=True):
    parcel_id: SagaId


class ParcelRefused(Refusal, owner="depot", optional=True):
    parcel_id: SagaId


metadata = MetaData()
parcels = Table("parcels", metadata, Column("parcel_id", String, primary_key=True), Column("pid", Integer))

saga = Saga(
    name="parcel",
    id_field="parcel_id",
    starts_with=ParcelBrought,
    completes_with=ParcelStored,
    fails_with=ParcelRefused,
)
depot = Participant("depot", saga=saga)


@depot.step()
async def weigh_parcel(event: ParcelBrought) -> ParcelWeighed:
    return ParcelWeighed(parcel_id=event.parcel_id)


@depot.step()
async def store_parcel(event: ParcelWeighed, session: AsyncSession) -> ParcelStored:
    await session.execute(insert(parcels).values(parcel_id=event.parcel_id, pid=os.getpid()))
    return ParcelStored(parcel_id=event.parcel_id)


app = Service(name="depot", participants=[depot], tables=metadata)


def parcel(number: int) -> WireMessage:
    """Return a starting event as a plain client sends it."""
    return WireMessage(json.dumps({"parcel_id": f"parcel-{number}"}).encode(), "customer.ParcelBrought")
