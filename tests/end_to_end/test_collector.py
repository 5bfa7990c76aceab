"""An OpenTelemetry collector, a program of its own, takes the services' spans and passes all of them on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.events import OrderCreated
from tests.end_to_end.breakable import free_port
from tests.end_to_end.collector import Collector, Span, collecting
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings

CONSUMER, CLIENT = 5, 3
STEPS = {
    "reserve_inventory": "order.OrderCreated",
    "process_payment": "inventory.InventoryReserved",
    "create_shipment": "payment.PaymentProcessed",
    "send_confirmation": "shipping.ShipmentCreated",
}
PUBLISHED = {*STEPS.values(), "notification.OrderFulfilled"} - {"order.OrderCreated"}


@asynccontextmanager
async def passed_on_to(receiver: Collector) -> AsyncIterator[Collector]:
    """Run the collector; yield its address, where it takes what it passes on to the receiver."""
    entrance = Collector(port=free_port())
    options = {
        "--otlp-http-endpoint": f"127.0.0.1:{entrance.port}",
        "--otlp-grpc-endpoint": f"127.0.0.1:{free_port()}",
        "--exporter": "otlp",
        "--otlp-exporter-protocol": "http",
        "--otlp-exporter-endpoint": f"http://127.0.0.1:{receiver.port}",
    }
    words = [word for option in options.items() for word in option]
    alone = os.environ | {"ROTEL_PID_FILE": ""}  # by default one file for all of the machine's
    process = await asyncio.create_subprocess_exec(binary(), "start", *words, env=alone)
    try:
        yield entrance
    finally:
        process.terminate()
        await process.wait()


def binary() -> str:
    """Return the collector's program, which its package brings."""
    (program,) = [each for each in metadata.files("rotel") or () if each.name == "rotel-agent"]
    return str(program.locate())


@pytest.mark.skipif(not find_spec("rotel"), reason="the collector's package has no file for this system or Python")
async def test_a_real_collector_passes_all_spans_on(rabbitmq: Server, tmp_path: Path, prefix: str) -> None:
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    (order,) = orders(1)
    with collecting() as receiver:
        async with passed_on_to(receiver) as collector:
            fleet = Fleet(settings, sqlite_databases(tmp_path), environment=collector.environment)
            await fleet.start(*SERVICES)

            await fleet.place([order])
            await fleet.all_ended([order])
            await eventually(lambda: is_whole(receiver, order), what="the saga's spans behind the collector")
            codes = await fleet.terminate()
            await fleet.stop()

    spans = receiver.of_saga(order.order_id)
    assert codes == [0, 0, 0, 0]
    assert {span.service for span in spans} == set(SERVICES)
    check_steps([span for span in spans if span.kind == CONSUMER], prefix)
    check_published([span for span in spans if span.kind == CLIENT], prefix)
    server = urlsplit(rabbitmq.url)
    for span in spans:
        if span.name != "saga order":
            assert span.facts["messaging.system"] == "rabbitmq"
            assert (span.facts["server.address"], span.facts["server.port"]) == (server.hostname, server.port)


async def is_whole(receiver: Collector, order: OrderCreated) -> bool:
    """Whether the spans of all steps and of all published events have arrived, and the saga's root."""
    spans = receiver.of_saga(order.order_id)
    known = {span.facts.get("messaging.rabbitmq.destination.routing_key") for span in spans if span.kind == CLIENT}
    return {span.operation for span in spans} == {"saga order", "publish", *STEPS} and known == PUBLISHED


def check_steps(spans: list[Span], exchange: str) -> None:
    for span in spans:
        key = STEPS[span.operation]
        place = f"{exchange}:{key}:{exchange}.{span.service}"
        assert (span.name, span.facts["messaging.destination.name"]) == (f"{span.operation} {place}", place)
        assert span.facts["messaging.rabbitmq.destination.routing_key"] == key
        assert span.facts["messaging.operation.type"] == "process"
        assert span.facts["messaging.message.id"]


def check_published(spans: list[Span], exchange: str) -> None:
    for span in spans:
        place = f"{exchange}:{span.facts['messaging.rabbitmq.destination.routing_key']}"
        assert (span.name, span.facts["messaging.destination.name"]) == (f"publish {place}", place)
        assert span.facts["messaging.operation.type"] == "send"
        assert span.links == [span.parent], "it links to the span that created the message"
