"""A service lives as long as the application around it, and neither waits for the broker for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from structlog.testing import capture_logs

from tests.end_to_end.proxy import Proxy
from tests.eventually import eventually
from tests.example_sagas.loan_rows import rows_left, states
from tests.servers import Server
from tests.unit.embedding.shop import OrderPlaced, shop, warehouse
from tests.unit.embedding.web_shop import BEARER, TOKEN, WebShop, shipped
from toolkit import Settings, start
from toolkit.configuration.environment import DEMO_TOKEN
from toolkit.embedding import saga_lifespan
from toolkit.errors import BrokerRefusesError, SettingsError
from toolkit.persistence.database import Database
from toolkit.runtime import running


async def test_two_services_run_in_one_application(settings: Settings) -> None:
    web = WebShop(settings)
    async with web.open() as client:
        placed = await client.post("/orders/order-1")
        saga = await shipped(client, "order-1", **BEARER)
        while_open = [running.settings_of(each) for each in web.services.values()]

    assert placed.json() == {"saga": "order-1"}
    assert (saga["entries"][0]["step"], saga["entries"][0]["to_state"]) == ("ship", "completed")
    assert while_open == [settings, settings]
    assert [running.settings_of(each) for each in web.services.values()] == [None, None]


async def test_an_application_serves_while_its_broker_is_away(settings: Settings, rabbitmq: Server) -> None:
    async with Proxy(rabbitmq.url) as proxy:
        proxy.refuse()
        through = settings.model_copy(update={"broker_url": proxy.through(rabbitmq.url)})
        with capture_logs() as logs:
            async with WebShop(through, patience=5).open() as client:
                placed = await client.post("/orders/order-1")
                before = await client.get("/saga/shop/readyz")
                proxy.heal()
                saga = await shipped(client, "order-1", **BEARER)

    assert (placed.status_code, before.status_code) == (200, 503)
    assert before.json() == {"broker": False, "database": True, "relay": False}
    assert saga["entries"][-1]["saga_state"] == "Completed"
    assert [log["service"] for log in logs if log["event"] == "the application starts before its service"] == [
        "shop",
        "warehouse",
    ]


async def test_a_stop_during_a_long_start_ends_it(settings: Settings, rabbitmq: Server) -> None:
    async with Proxy(rabbitmq.url) as proxy:
        proxy.refuse()
        through = settings.model_copy(update={"broker_url": proxy.through(rabbitmq.url)})
        async with WebShop(through, patience=5).open() as client:
            await client.post("/orders/order-1")

    database = Database(settings.database_for("shop"))
    assert await rows_left(database) == ["order-1"]
    await database.close()
    assert [task.get_name() for task in asyncio.all_tasks() if "shop" in task.get_name()] == []


async def test_a_fault_for_good_fails_the_applications_start(settings: Settings, rabbitmq: Server) -> None:
    async with await aio_pika.connect(rabbitmq.url) as connection, connection.channel() as channel:
        await channel.declare_exchange(settings.exchange, aio_pika.ExchangeType.DIRECT, durable=True)

    with pytest.raises(BrokerRefusesError, match=f"exchange {settings.exchange} has another type"):
        async with WebShop(settings).open():
            pass

    assert [task.get_name() for task in asyncio.all_tasks() if "shop" in task.get_name()] == []


async def test_a_fault_for_good_in_the_background_is_logged(settings: Settings, rabbitmq: Server) -> None:
    async with await aio_pika.connect(rabbitmq.url) as connection, connection.channel() as channel:
        await channel.declare_exchange(settings.exchange, aio_pika.ExchangeType.DIRECT, durable=True)

    with capture_logs() as logs:
        async with WebShop(settings, shop(), patience=0).open() as client:

            async def is_logged() -> list[Any]:
                return [log for log in logs if log["event"] == "service could not start"]

            (line,) = await eventually(is_logged, what="the error")
            answer = await client.get("/saga/shop/readyz")

    assert "name another SAGA_EXCHANGE" in line["error"]
    assert answer.status_code == 503


async def test_a_stopping_application_finishes_its_steps(settings: Settings) -> None:
    began = asyncio.Event()

    async def pack() -> None:
        began.set()
        await asyncio.sleep(0.3)

    async with WebShop(settings, shop(), warehouse(pack)).open() as client:
        await client.post("/orders/order-1")
        await asyncio.wait_for(began.wait(), 60)
    database = Database(settings.database_for("warehouse"))

    assert (await states(database, "order-1"))[:1] == ["completed"]
    await database.close()


async def test_two_services_on_one_database_are_refused(settings: Settings, tmp_path: Path) -> None:
    shared = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'both.db'}"})
    with pytest.raises(SettingsError, match="warehouse and shop have one database"):
        async with WebShop(shared).open():
            pass


async def test_the_engines_database_is_the_services(settings: Settings, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")
    service = warehouse()
    async with saga_lifespan(service, settings, engine=engine)(None), AsyncSession(engine) as session:
        await start(session, OrderPlaced(order_id="order-1"))
        await session.commit()

        async def has_shipped() -> bool:
            return bool((await session.execute(text("SELECT 1 FROM saga_log WHERE to_state = 'completed'"))).all())

        await eventually(has_shipped, what="the shipment")
    await engine.dispose()

    assert not Path(settings.database_for("warehouse").removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"broker_url": "embedded"}, "a service in an application needs a broker: name one"),
        ({"api_token": DEMO_TOKEN}, "is well known"),
    ],
)
async def test_unusable_settings_fail_the_start(settings: Settings, change: dict[str, Any], fault: str) -> None:
    unusable = Settings.model_validate(settings.model_dump() | {"api_read_token": TOKEN} | change)
    with pytest.raises(SettingsError, match=fault):
        async with saga_lifespan(shop(), unusable)(None):
            pass
