"""The order saga by a coordinator: its containers, the rights of its logins, and the checks of `saga verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from examples.orchestrated.demo import DEMO
from services.events import OrderCreated, order_saga
from tests.examples.damaged import damage
from toolkit import Settings
from toolkit.cli.commands.verify import checks_of
from toolkit.client.database_client import DatabaseClient
from toolkit.client.starting import send
from toolkit.client.verification import verify
from toolkit.clock import SystemClock
from toolkit.declaration.contract import Contract
from toolkit.messaging.rights import as_definitions, rights_of
from toolkit.transport.embedded import Embedded

EXAMPLE = Path(__file__).parents[2] / "examples" / "orchestrated"
ASKED_BY = {"order": "fulfillment"}


def test_logins_have_the_rights_of_the_contracts() -> None:
    contracts = [Contract.of(service, asked_by=ASKED_BY) for service in DEMO.services]
    applied = json.loads((EXAMPLE / "definitions.json").read_text())

    cure = "SAGA_PACKAGE=examples.orchestrated SAGA_ASKED_BY=fulfillment saga topology --permissions -o json"
    assert applied == as_definitions(rights_of(contracts, "saga", {}), "saga", vhost="/"), f"regenerate it: {cure}"


def test_containers_have_the_four_services_asked() -> None:
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]

    asked = {name for name, facts in services.items() if facts.get("environment", {}).get("SAGA_ASKED_BY")}
    assert asked == {service.name for service in DEMO.services} - {"fulfillment"}
    logins = json.loads(services["payment"]["environment"]["SAGA_LOGINS"])
    assert logins["fulfillment"] == ["fulfillment"]
    assert "fulfillment" in logins["saga"]


def test_coordinators_container_is_kept_like_the_others() -> None:
    own = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]["fulfillment"]
    shop = yaml.safe_load((EXAMPLE.parents[1] / "compose.yaml").read_text())

    assert own["build"]["args"] == shop["x-service"]["build"]["args"]
    written_alone = {"build", "command", "environment", "image", "ports", "volumes"}
    assert {name: own[name] for name in own if name not in written_alone} == {
        name: facts for name, facts in shop["x-service"].items() if name != "build"
    }


@pytest.fixture
async def databases(tmp_path: Path) -> dict[str, str]:
    """The databases after a fulfilled order and one whose card is declined."""
    settings = Settings(data_dir=tmp_path, **DEMO.settings)
    orders = {each.id: each for each in DEMO.scenarios if each.id in ("demo-fine", "demo-declined")}
    events = {order: each.event(order_saga, OrderCreated) for order, each in orders.items()}
    async with Embedded(DEMO.services, settings) as embedded:
        await send(order_saga, events, embedded, clock=SystemClock())
        assert await embedded.settled(60)
    return {each.name: settings.database_for(each.name) for each in DEMO.services}


@pytest.mark.parametrize(
    ("service", "fault", "found"),
    [
        ("inventory", "UPDATE stock SET on_hand = on_hand - 1 WHERE sku = 'SPOON'", ["SPOON"]),
        ("payment", "UPDATE payment SET captured = captured + 1", ["demo-fine ended Completed: "]),
        ("payment", "SELECT 1", []),
    ],
)
async def test_verify_checks_goods_and_money(
    databases: dict[str, str], service: str, fault: str, found: list[str]
) -> None:
    await damage(databases[service], fault)
    clients = [DatabaseClient(name, url) for name, url in databases.items()]

    report = await verify(clients, checks=checks_of(DEMO.package))

    for client in clients:
        await client.close()
    assert report.unchecked == ["the broker's queues: SAGA_BROKER_URL names none"]
    assert len(report.violations) == len(found)
    assert all(part in str(each) for part, each in zip(found, report.violations, strict=True))
