"""A service runs in a FastStream application, and no message of one ends the connection of the other."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
from faststream import FastStream
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.security import BaseSecurity

from tests.eventually import becomes_true, eventually
from tests.example_sagas.loan_rows import dead_letters_of, states
from tests.servers import Server
from tests.unit.embedding.shop import OrderPlaced, warehouse
from toolkit import Settings
from toolkit.client.starting import publisher_for
from toolkit.clock import SystemClock
from toolkit.embedding import participate
from toolkit.errors import SettingsError
from toolkit.messaging.envelope import starting_message
from toolkit.persistence.database import Database
from toolkit.transport.rabbitmq.team_broker import address_of

#: A time that no Python has.
NO_TIME = 2**63 - 1


class Application:
    """A FastStream application with a subscriber to the end of each order, and a warehouse."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.reconnects: list[Any] = []
        self.heard: list[str] = []
        self.broker = RabbitBroker(url, logger=None, on_reconnected=[self.reconnects.append])
        self.app = FastStream(self.broker, logger=None)
        exchange = RabbitExchange(settings.exchange, type=ExchangeType.TOPIC, durable=True)
        queue = RabbitQueue(f"{settings.exchange}.letters", durable=True, routing_key="warehouse.OrderShipped")
        self.broker.subscriber(queue, exchange)(self._hear)
        facts = settings.model_dump(include={"exchange", "data_dir"})  # the broker is the application's
        participate(self.app, warehouse(), Settings(**facts), patience=timedelta(minutes=1))

    async def _hear(self, body: dict[str, Any]) -> None:
        self.heard.append(body["order_id"])


@pytest.fixture
async def application(settings: Settings) -> AsyncIterator[Application]:
    found = Application(settings.broker_url, settings)
    await found.app.start()
    yield found
    await found.app.stop()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The warehouse's database."""
    database = Database(settings.database_for("warehouse"))
    yield database
    await database.close()


async def place(settings: Settings, order_id: str) -> None:
    async with publisher_for([], settings) as publisher:
        await publisher.publish(
            starting_message("order", order_id, OrderPlaced(order_id=order_id), now=SystemClock().now())
        )


def publish_without_a_time(url: str, exchange: str, key: str) -> None:
    """Publish a message whose timestamp can't be decoded."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        properties = pika.BasicProperties(timestamp=NO_TIME, correlation_id="order-2")
        connection.channel().basic_publish(exchange, key, b'{"order_id": "order-2"}', properties)


async def test_a_service_runs_beside_the_applications_subscriber(
    application: Application, settings: Settings, database: Database
) -> None:
    await place(settings, "order-1")
    await becomes_true(lambda: application.heard == ["order-1"], what="the letter")

    assert (await states(database, "order-1"))[:1] == ["completed"]


async def test_a_malformed_message_leaves_the_application_connected(
    application: Application, settings: Settings, database: Database
) -> None:
    await asyncio.to_thread(publish_without_a_time, settings.broker_url, settings.exchange, "shop.OrderPlaced")

    async def is_kept() -> list[Any]:
        return await dead_letters_of(database)

    (dead_letter,) = await eventually(is_kept, what="the dead letter")
    await place(settings, "order-1")
    await becomes_true(lambda: application.heard == ["order-1"], what="the letter")

    assert dead_letter.saga_id == "order-2"
    assert application.reconnects == []


async def test_a_malformed_message_ends_a_shared_connection(rabbitmq: Server, prefix: str) -> None:
    closed: list[BaseException | None] = []
    broker = RabbitBroker(rabbitmq.url, logger=None, on_close=[lambda _, error: closed.append(error)])
    broker.subscriber(RabbitQueue(prefix, auto_delete=True))(print)
    async with broker:
        await broker.start()
        await asyncio.to_thread(publish_without_a_time, rabbitmq.url, "", prefix)
        await becomes_true(lambda: bool(closed), what="the end of the connection")


async def test_a_service_stops_and_starts_with_its_application(settings: Settings, database: Database) -> None:
    application = Application(settings.broker_url, settings)
    await application.app.start()
    await application.app.stop()
    await place(settings, "order-1")
    before = await states(database, "order-1")
    await application.app.start()
    await becomes_true(lambda: application.heard == ["order-1"], what="the letter")
    await application.app.stop()

    assert before == []
    assert (await states(database, "order-1"))[:1] == ["completed"]


@pytest.mark.parametrize(
    ("broker", "fault"),
    [
        (None, "the application has NoneType in place of a RabbitBroker: name the broker"),
        (RabbitBroker(security=BaseSecurity(ssl.create_default_context())), "has an SSLContext, which no URL has"),
    ],
)
def test_a_broker_without_an_address_is_refused(tmp_path: Path, broker: RabbitBroker | None, fault: str) -> None:
    app = FastStream(broker) if broker else FastStream()
    with pytest.raises(SettingsError, match=fault):
        participate(app, warehouse(), Settings(data_dir=tmp_path))


def test_the_address_has_the_applications_login() -> None:
    url = "amqp://shop:a-secret@rabbitmq.example:5673/orders"

    assert address_of(RabbitBroker(url)) == url
