"""The depot's application: `faststream run examples.embedded_faststream.depot.stream:app`.

Its own subscribers and the participant share the process, the broker and the database; each has its own queues.
"""

from __future__ import annotations

import os

from faststream import AckPolicy, FastStream
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from examples.embedded_faststream.depot.app import app as depot
from examples.embedded_faststream.depot.models import Parcel
from examples.embedded_faststream.events import ParcelArrived, ParcelDelivered, Street, Weight
from toolkit import SagaId, start
from toolkit.configuration.settings import load_settings
from toolkit.embedding import participate

engine = create_async_engine(os.environ.get("DEPOT_DATABASE_URL", "sqlite+aiosqlite:///depot.db"))
settings = load_settings()

broker = RabbitBroker(settings.broker_url)
app = FastStream(broker)
participate(app, depot, settings, engine=engine)

arrivals = RabbitQueue(f"{settings.exchange}.arrivals", durable=True)
deliveries = RabbitQueue(f"{settings.exchange}.deliveries", durable=True, routing_key="courier.ParcelDelivered")
sagas = RabbitExchange(settings.exchange, type=ExchangeType.TOPIC, durable=True)


class Scan(BaseModel):
    """What the sorting machine sends."""

    parcel_id: SagaId
    street: Street
    grams: Weight


@broker.subscriber(arrivals, ack_policy=AckPolicy.NACK_ON_ERROR)
async def store_parcel(scan: Scan) -> None:
    """Store a parcel, and start its delivery with the same commit; a scan that comes twice is one delivery."""
    async with AsyncSession(engine) as session, session.begin():
        if await session.get(Parcel, scan.parcel_id) is None:
            session.add(Parcel(id=scan.parcel_id, street=scan.street))
        await start(session, ParcelArrived(parcel_id=scan.parcel_id, street=scan.street, grams=scan.grams))


@broker.subscriber(deliveries, sagas, ack_policy=AckPolicy.NACK_ON_ERROR)
async def note_delivery(event: ParcelDelivered) -> None:
    """Note the end of a saga in a table of the application's own."""
    async with AsyncSession(engine) as session, session.begin():
        if parcel := await session.get(Parcel, event.parcel_id):
            parcel.is_delivered = True
