"""The order saga by a coordinator: its containers, and the rights of its logins."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from examples.orchestrated.demo import DEMO
from toolkit.declaration.contract import Contract
from toolkit.messaging.rights import as_definitions, rights_of

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
