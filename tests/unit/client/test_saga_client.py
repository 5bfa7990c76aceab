"""A program starts sagas, reads them and waits for their ends, over each transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.demo import SERVICES
from services.events import OrderCreated, OrderFulfilled, order_saga
from tests.end_to_end import fleet
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.servers import Server
from toolkit import Settings
from toolkit.client import NotEndedError, NotStartingError, SagaClient, connect
from toolkit.declaration.events import SagaState, documented_example
from toolkit.errors import NoServiceError, UnroutableError
from toolkit.protocol.timeline import Timeline

SOON = timedelta(seconds=30)


def order(order_id: str, **changes: str) -> OrderCreated:
    return OrderCreated.model_validate(documented_example(OrderCreated) | {"order_id": order_id} | changes)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[SagaClient]:
    settings = Settings(broker_url="embedded", data_dir=tmp_path)
    async with connect(order_saga, services=SERVICES, settings=settings) as client:
        yield client


async def test_client_waits_for_a_completed_saga(embedded: SagaClient):
    order_id = await embedded.start(order("order-1"))

    timeline = await embedded.wait(order_id, timeout=SOON)

    assert (order_id, timeline.saga_type, timeline.state) == ("order-1", "order", SagaState.COMPLETED)


async def test_client_reads_a_refused_sagas_report(embedded: SagaClient):
    await embedded.start(order("order-2", payment_method="card_declined"))
    await embedded.wait("order-2", timeout=SOON)

    report = await embedded.saga("order-2")

    assert report.timeline.state is SagaState.FAILED
    assert "Payment refused" in report.progress.summary
    assert {node.name: str(node.status) for node in report.progress.nodes}["reserve_inventory"] == "undone"


async def test_an_event_started_twice_starts_one_saga(embedded: SagaClient):
    for _ in range(2):
        await embedded.start(order("order-3"))
    await embedded.wait("order-3", timeout=SOON)

    timeline = (await embedded.saga("order-3")).timeline

    assert [entry.step for entry in timeline.entries if entry.to_state == "completed"].count("reserve_inventory") == 1


async def test_unknown_saga_has_no_entries(embedded: SagaClient):
    report = await embedded.saga("order-404")

    assert (report.timeline.entries, report.timeline.state) == ([], None)


async def test_timed_out_wait_has_the_timeline_so_far(embedded: SagaClient):
    with pytest.raises(TimeoutError, match=r"saga order-404 has not ended within 0\.2 s: it is unknown") as raised:
        await embedded.wait("order-404", timeout=timedelta(seconds=0.2))

    assert isinstance(raised.value, NotEndedError)
    assert raised.value.timeline == Timeline("order-404", [])


async def test_an_event_that_starts_no_saga_is_refused(embedded: SagaClient):
    fulfilled = OrderFulfilled(order_id="order-1", tracking_number="T-1")

    with pytest.raises(NotStartingError, match=r"starts with OrderFulfilled; its sagas: OrderCreated$"):
        await embedded.start(fulfilled)


async def test_a_client_without_services_names_the_setting(tmp_path: Path):
    with pytest.raises(NoServiceError, match="SAGA_SERVICES"):
        async with connect(order_saga, settings=Settings(broker_url="embedded", data_dir=tmp_path)):
            pass


async def test_client_follows_sagas_over_rabbitmq(rabbitmq: Server, tmp_path: Path, prefix: str):
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    shop = Fleet(settings, sqlite_databases(tmp_path))
    replicas = await shop.start(*fleet.SERVICES)
    urls = {each.name: f"http://127.0.0.1:{each.port}" for each in replicas}

    async with connect(order_saga, urls=urls, settings=settings) as client:
        for order_id, method in (("order-1", "card_ok"), ("order-2", "card_declined")):
            await client.start(order(order_id, payment_method=method))
        good = await client.wait("order-1", timeout=SOON)
        bad = await client.wait("order-2", timeout=SOON)
        report = await client.saga("order-2")
    await shop.stop()

    assert (good.state, bad.state) == (SagaState.COMPLETED, SagaState.FAILED)
    assert report.without_contract == {}
    assert report.progress.summary.startswith("Payment refused")


async def test_an_event_that_no_service_consumes_is_reported(rabbitmq: Server, tmp_path: Path, prefix: str):
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    async with connect(order_saga, urls={"payment": "http://127.0.0.1:1"}, settings=settings) as client:
        with pytest.raises(UnroutableError, match=r"no queue is bound to order\.OrderCreated"):
            await client.start(order("order-1"))

        report = await client.saga("order-1")

    assert list(report.timeline.unreachable) == ["payment"]
