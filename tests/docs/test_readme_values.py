"""The README's values to test with: an order with each of them ends as the table states."""

from __future__ import annotations

import shlex
from pathlib import Path

from services.demo import SERVICES
from services.events import OrderCreated, order_saga
from tests.docs.pages import README, rows, section
from toolkit import Settings
from toolkit.cli.demonstration import outcome_of
from toolkit.cli.payload import apply, example_of, validated
from toolkit.client.database_client import DatabaseClient
from toolkit.client.saga_report import timeline_of
from toolkit.client.starting import send
from toolkit.clock import SystemClock
from toolkit.transport.embedded import Embedded


async def test_readme_values_end_their_orders_as_stated(tmp_path: Path) -> None:
    # Long enough for four attempts, and short enough for a card that never answers.
    settings = Settings(data_dir=tmp_path, broker_url="embedded", step_timeouts={"process_payment": 6})
    expected = {}
    async with Embedded(SERVICES, settings) as embedded:
        for changes, state, undone, _ in rows(section(README, "Values to test with")):
            order = placed(f"order-{len(expected)}", shlex.split(changes.strip("`"))[1::2])
            expected[order.order_id] = (state, undone.replace("nothing", ""))
            await send(order_saga, {order.order_id: order}, embedded, clock=SystemClock())
        assert await embedded.settled(30)
        clients = [DatabaseClient(each.name, settings.database_for(each.name)) for each in SERVICES]
        outcomes = {
            order_id: outcome_of(await timeline_of((order_saga.name, order_id), clients)) for order_id in expected
        }
        for client in clients:
            await client.close()

    assert {order_id: (each.state, ", ".join(each.undone)) for order_id, each in outcomes.items()} == expected


def placed(order_id: str, changes: list[str]) -> OrderCreated:
    """Return the example order with these changes."""
    fields = example_of(order_saga) | {"order_id": order_id}
    for change in changes:
        apply(change, fields)
    return validated(OrderCreated, fields)
