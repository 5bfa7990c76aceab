"""The embedded transport: several services in one process, which publish to each other."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from services.demo import SERVICES
from services.events import OrderCreated
from tests.eventually import eventually
from tests.example_sagas.loans import Clerk, library
from tests.example_sagas.parallel_trip import PATIENCE, RoomBooked, holiday_saga
from tests.example_sagas.parallel_trip import services as holiday_services
from tests.example_sagas.travel import Script
from toolkit import Settings
from toolkit.declaration.events import documented_example, routing_key
from toolkit.errors import UnroutableError
from toolkit.ids import derived_id, new_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.observability.broker_attributes import Broker
from toolkit.persistence import outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.testing import ManualClock
from toolkit.transport.embedded import Embedded


async def test_a_leftover_row_waits_until_its_consumer_starts(tmp_path: Path):
    # inventory is started first, and the notification, which hears this, last
    settings = Settings(data_dir=tmp_path, relay_lease=timedelta(minutes=5))
    order = documented_example(OrderCreated)["order_id"]
    body = f'{{"order_id": "{order}", "reason": "sold out"}}'.encode()
    left = WireMessage(
        body, "inventory.InventoryReservationFailed", message_id=derived_id("order", order, "x"), correlation_id=order,
        type="InventoryReservationFailed", timestamp=datetime.now(UTC), headers={"saga-type": "order"},
    )  # fmt: skip
    database = Database(settings.database_for("inventory"))
    await database.create_tables()
    async with database.transaction() as session:
        row = OutboxRow(id=new_id(), message=left, due_at=datetime.now(UTC))
        await outbox.add(await session.connection(), [row])
    await database.close()

    async with Embedded(SERVICES, settings) as embedded:
        assert await embedded.settled(10)
        async with embedded.runtimes["notification"].database.reading() as connection:
            states = [entry.to_state for entry in await saga_log_queries.entries(connection, saga_id=order)]

    assert "completed" in states


async def test_each_log_line_names_its_embedded_service(tmp_path: Path):
    settings = Settings(data_dir=tmp_path, relay_poll=timedelta(milliseconds=50))
    order = documented_example(OrderCreated) | {"payment_method": "card_flaky"}
    wire = WireMessage(OrderCreated.model_validate(order).model_dump_json().encode(), routing_key(OrderCreated))

    async def the_outage() -> list[MutableMapping[str, Any]]:
        return [line for line in lines if "relay" in line["event"]]

    with capture_logs(processors=[merge_contextvars]) as lines:
        async with Embedded(SERVICES, settings) as embedded:
            await embedded.publish(wire)
            await embedded.publish(WireMessage(b"no JSON", routing_key(OrderCreated)))
            assert await embedded.settled(10)
            async with embedded.runtimes["shipping"].database.engine.begin() as connection:
                await connection.execute(text("DROP TABLE saga_outbox"))
            await eventually(the_outage, what="an outage")

    assert [line for line in lines if "service" not in line] == []
    moved = {line["service"]: line for line in lines if line["event"] == "saga moved"}
    assert set(moved) == {"inventory", "payment", "shipping", "notification"}
    assert all({"saga_id", "step", "from_state", "to_state", "event_id"} <= set(line) for line in moved.values())
    assert {line["service"] for line in lines if line["event"] == "step will be retried"} == {"payment"}
    assert {line["service"] for line in lines if line["event"] == "message dead-lettered"} == {"inventory"}
    assert {line["service"] for line in await the_outage()} == {"shipping"}


async def test_spans_of_embedded_services_name_no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")

    embedded = Embedded([library(Clerk())], Settings(data_dir=tmp_path))

    tracing = embedded.runtimes["library"].tracing
    assert tracing is not None
    assert tracing.broker == Broker("embedded")
    tracing.shut_down(0.1)


async def test_an_embedded_burst_has_an_outcome_each(tmp_path: Path) -> None:
    order = documented_example(OrderCreated)
    body = OrderCreated.model_validate(order).model_dump_json().encode()
    placed, garbage = WireMessage(body, routing_key(OrderCreated)), WireMessage(b"", routing_key(OrderCreated))

    async with Embedded(SERVICES, Settings(data_dir=tmp_path)) as embedded:
        outcomes = await embedded.publish_many(
            [(placed, None), (WireMessage(b"{}", "nobody.Cares"), None), (garbage, "saga.inventory")]
        )
        nothing = await embedded.publish_many([])
        assert await embedded.settled(10)

    assert [type(each) for each in outcomes] == [type(None), UnroutableError, type(None)]
    assert nothing == []


async def test_settled_waits_for_a_deadline_that_has_passed(tmp_path: Path):
    clock, settings = ManualClock(), Settings(data_dir=tmp_path, relay_poll=timedelta(minutes=1))
    booked = Envelope.of(RoomBooked, saga=(holiday_saga.name, "trip-1"), occurred_at=clock.now())
    async with Embedded(holiday_services(Script()), settings, clock=clock) as embedded:
        await embedded.publish(booked.carry(RoomBooked(trip_id="trip-1")))
        assert await embedded.settled(10), "a deadline that has not passed waits by design"

        clock.advance(PATIENCE)
        assert await embedded.settled(20)

        async with embedded.runtimes["payment"].database.reading() as connection:
            states = [entry.to_state for entry in await saga_log_queries.entries(connection)]
    assert "failed" in states
