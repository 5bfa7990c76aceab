"""One trace for each saga over all services: real processes export to a real OTLP endpoint."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from services.events import OrderCreated
from tests.conftest import PostgresDatabases
from tests.end_to_end.collector import Collector, Span, collecting
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.placed_orders import SERVICES
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings
from toolkit.declaration.events import documented_example

CONSUMER = 5

#: An order whose card fails twice and whose address no carrier serves, so that all steps are undone.
UNLUCKY = {
    "payment_method": "card_flaky",
    "shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"},
}


@pytest.fixture
def collector():
    with collecting() as collector:
        yield collector


async def test_a_compensated_saga_is_one_trace(
    rabbitmq: Server, postgres_databases: PostgresDatabases, tmp_path: Path, prefix: str, collector: Collector
):
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    databases = sqlite_databases(tmp_path) | {"payment": await postgres_databases.url("payment")}
    fleet = Fleet(settings, databases, environment=collector.environment)
    await fleet.start(*SERVICES)
    foreign = order(**UNLUCKY)

    triggered = await trigger(settings, collector, **{"payment_method": "card_flaky", "shipping_address.country": "AQ"})
    await fleet.place([foreign])
    await fleet.all_ended([order(**UNLUCKY), foreign])
    codes = await fleet.terminate()
    await fleet.stop()

    assert codes == [0, 0, 0, 0]
    for saga_id in (triggered, foreign.order_id):
        spans = collector.of_saga(saga_id)
        assert len({span.trace for span in spans}) == 1
        assert {span.service for span in spans} >= set(SERVICES)
        assert steps_of(spans) == [
            ("inventory", "reserve_inventory", 1, "completed"),
            ("payment", "process_payment", 1, "retrying"),
            ("payment", "process_payment", 2, "retrying"),
            ("payment", "process_payment", 3, "completed"),
            ("shipping", "create_shipment", 1, "failed"),
            ("payment", "refund_payment", 1, "compensated"),
            ("inventory", "release_inventory", 1, "compensated"),
            ("notification", "send_cancellation_notice", 1, "completed"),
        ]
        check_parents(spans)
    assert root_of(collector.of_saga(triggered)).name == f"trigger {prefix}:order.OrderCreated"
    assert root_of(collector.of_saga(foreign.order_id)).name == "saga order"


def check_parents(spans: list[Span]) -> None:
    """Check that a step's parent is the step that emitted its event, and a publish's parent its emitting step."""
    (root,) = [span for span in spans if not span.parent]
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)
    assert {span.parent for span in spans if span.parent} <= by_id.keys()
    steps = [span for span in spans if span.kind == CONSUMER]
    parents = [(span.operation, by_id[span.parent].operation) for span in steps]
    assert parents == [
        ("reserve_inventory", root.operation),
        *[("process_payment", "reserve_inventory")] * 3,
        ("create_shipment", "process_payment"),
        ("refund_payment", "create_shipment"),
        ("release_inventory", "refund_payment"),
        ("send_cancellation_notice", "release_inventory"),
    ]
    published = {s.facts["saga.event"]: by_id[s.parent].operation for s in spans if s.operation == "publish"}
    assert published["InventoryReserved"] == "reserve_inventory"  # the retries of its consumer, too
    assert published["PaymentProcessed"] == "process_payment"
    assert published["InventoryReleased"] == "release_inventory"
    retried, _, paid = [span for span in steps if span.operation == "process_payment"]
    assert retried.errors
    assert not paid.errors
    assert "payment_method" not in str(spans)  # no event's body


def steps_of(spans: list[Span]) -> list[tuple[str, str, int, str]]:
    return [
        (span.service, span.operation, span.facts["saga.attempt"], span.facts["saga.outcome"])
        for span in spans
        if span.kind == CONSUMER
    ]


def root_of(spans: list[Span]) -> Span:
    return next(span for span in spans if not span.parent)


def order(**changes: object) -> OrderCreated:
    facts = documented_example(OrderCreated) | {"order_id": f"order-{uuid4().hex[:12]}"} | changes
    return OrderCreated.model_validate(facts)


async def trigger(settings: Settings, collector: Collector, **changes: str) -> str:
    """Start an order by `saga trigger`, and return its id."""
    words = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "toolkit.cli", "trigger", "OrderCreated", *words),
        env=os.environ
        | {"SAGA_BROKER_URL": settings.broker_url, "SAGA_EXCHANGE": settings.exchange}
        | collector.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await command.communicate()
    assert command.returncode == 0
    return printed.decode().strip()


async def test_a_silent_collector_blocks_no_service(rabbitmq: Server, tmp_path: Path, prefix: str):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        fleet = Fleet(settings, sqlite_databases(tmp_path), environment=environment)
        await fleet.start("inventory")

        await fleet.place([order()])
        await eventually(lambda: fleet.waiting_rows("inventory"), what="a reservation without a consumer")
        await asyncio.to_thread(silent.accept)  # by now an export is blocked for good
        begun = time.monotonic()
        codes = await fleet.terminate()

        assert codes == [0]
        assert time.monotonic() - begun < 5
        await fleet.stop()
