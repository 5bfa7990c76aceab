"""The order saga with the rights of compose: they suffice, and no login may forge another's message."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aio_pika.abc import AbstractConnection

from services.demo import SERVICES
from services.events import OrderCreated, order_saga
from tests.end_to_end.guarded import LOGINS, PROJECT, Guarded, guarded_broker, is_allowed, publishing
from tests.eventually import eventually
from tests.servers import docker_is_there
from toolkit import Settings
from toolkit.app import App
from toolkit.cli.payload import apply, example_of, validated
from toolkit.clock import SystemClock
from toolkit.declaration.events import SagaEnded
from toolkit.ids import new_id
from toolkit.messaging.envelope import starting_message
from toolkit.persistence import dead_letter_queries, dead_letters, saga_log_queries
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.dead_letter_rows import WholeDeadLetter
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

Apps = dict[str, App]


@pytest.fixture(scope="module")
def broker() -> Iterator[Guarded]:
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, and a shared broker's rights are not changed")
    with guarded_broker() as broker:
        yield broker


@pytest.fixture
async def apps(broker: Guarded, tmp_path: Path) -> AsyncIterator[Apps]:
    """The four services, each by its own login, with the SAGA_LOGINS of compose."""
    (logins,) = re.findall(r"SAGA_LOGINS: &logins '(.+)'", (PROJECT / "compose.yaml").read_text())
    facts: Any = {"data_dir": tmp_path, "logins": json.loads(logins)}
    apps = {each.name: App(each, Settings(broker_url=broker.url(each.name), **facts)) for each in SERVICES}
    for each in apps.values():
        await each.start()
    yield apps
    await asyncio.gather(*(each.stop() for each in apps.values()))


@pytest.fixture
async def connections(broker: Guarded) -> AsyncIterator[dict[str, AbstractConnection]]:
    opened = {login: await broker.connect(login) for login in LOGINS}
    yield opened
    for each in opened.values():
        await each.close()


def order(*changes: str) -> OrderCreated:
    fields = example_of(order_saga) | {"order_id": f"order-{new_id()[-12:]}"}
    for change in changes:
        apply(change, fields)
    return validated(OrderCreated, fields)


async def trigger(broker: Guarded, placed: OrderCreated) -> None:
    """Place an order as the command line does."""
    async with RabbitPublisher(Settings(broker_url=broker.url("saga"))) as client:
        await client.publish(starting_message(order_saga.name, placed.order_id, placed, now=SystemClock().now()))


async def entries(app: App, order_id: str) -> list[Entry]:
    async with app.runtime.database.reading() as connection:
        return await saga_log_queries.timeline(connection, order_id)


async def state(apps: Apps, order_id: str) -> str | None:
    states = [str(entry.saga_state) for entry in await entries(apps["notification"], order_id)]
    return next((each for each in states if each in ("Completed", "Failed")), None)


async def ended(apps: Apps, order_id: str) -> str:
    async def look() -> str | None:
        return await state(apps, order_id)

    return await eventually(look, within=60, what=f"the end of {order_id}") or ""


async def dead_letter_of(app: App, saga_id: str | None = None) -> WholeDeadLetter:
    async def look() -> list[WholeDeadLetter]:
        async with app.runtime.database.reading() as connection:
            return await dead_letter_queries.listed(connection, dead_letters.Selection(saga_id=saga_id))

    return (await eventually(look, what=f"a dead letter of {app.service.name}"))[0]


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ("payment_method=card_ok", "Completed"),
        ("payment_method=card_flaky", "Completed"),  # two retries, through payment's own exchange
        ("customer_email=ada@bounce.example", "Failed"),  # all of it is undone
    ],
)
async def test_composes_rights_suffice_for_a_saga(broker: Guarded, apps: Apps, change: str, end: str) -> None:
    placed = order(change)

    await trigger(broker, placed)

    assert await ended(apps, placed.order_id) == end
    for each in apps.values():
        async with each.runtime.database.reading() as connection:
            assert await dead_letter_queries.listed(connection) == []


async def test_a_client_without_user_id_starts_orders(apps: Apps, connections: dict[str, AbstractConnection]) -> None:
    placed = order()

    sends = publishing("saga", "order.OrderCreated", body=placed.model_dump_json().encode())

    assert await is_allowed(connections["saga"], sends)
    assert await ended(apps, placed.order_id) == "Completed"


@pytest.mark.parametrize("forged", ["SagaEnded", "PaymentProcessed"])
async def test_a_forged_event_confirms_and_ships_nothing(
    apps: Apps, connections: dict[str, AbstractConnection], forged: str
) -> None:
    placed = order()
    address = placed.shipping_address.model_dump()
    facts: dict[str, Any] = {"order_id": placed.order_id, "amount": 1, "shipping_address": address}
    bodies = {
        "SagaEnded": SagaEnded(saga_type="order", completed=(placed.order_id,)).model_dump_json(),
        "PaymentProcessed": json.dumps(facts | {"customer_email": "ada@shop.example"}),
    }
    properties = {"type": forged, "correlation_id": placed.order_id, "headers": {"saga-type": "order"}}

    sends = publishing("saga", "saga.AbortRequested", body=bodies[forged].encode(), **properties)

    assert await is_allowed(connections["saga"], sends)
    found = await dead_letter_of(apps["shipping"], placed.order_id)
    assert found.reason == "wrong routing key"
    assert [await entries(each, placed.order_id) for each in apps.values()] == [[], [], [], []]


async def test_no_service_ends_another_services_saga(apps: Apps, connections: dict[str, AbstractConnection]) -> None:
    """The broker refuses the key; for an operator's login, which may use it, the service refuses the login."""
    body = SagaEnded(saga_type="order", completed=("order-1",)).model_dump_json().encode()

    by_payment = publishing("saga", "saga.SagaEnded", body=body, user_id="payment")
    by_admin = publishing("saga", "saga.SagaEnded", body=body, user_id="admin")

    assert not await is_allowed(connections["payment"], by_payment)
    assert await is_allowed(connections["admin"], by_admin)
    assert (await dead_letter_of(apps["payment"])).reason == "wrong sender"


async def test_a_forwarding_exchange_gains_a_login_nothing(
    apps: Apps, connections: dict[str, AbstractConnection]
) -> None:
    """RabbitMQ checks no key when one exchange forwards to another, and a login may bind its own."""
    placed = order()
    async with connections["payment"].channel() as channel:
        shared = await channel.get_exchange("saga", ensure=False)
        await shared.bind("saga.payment", routing_key="")

    sends = publishing("saga.payment", "order.OrderCreated", body=placed.model_dump_json().encode())

    assert await is_allowed(connections["payment"], sends)
    assert (await dead_letter_of(apps["inventory"], placed.order_id)).reason == "forwarded"
    async with connections["payment"].channel() as channel:
        await (await channel.get_exchange("saga", ensure=False)).unbind("saga.payment", routing_key="")
