"""`saga topology`: rights are read from declarations or from running services, under the names that settings give."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_running_services_rights_equal_its_declarations(saga: Any, logs: dict[str, str], serve: Any):
    url = serve("payment", logs["payment"])

    asked = json.loads(saga("topology", "--permissions", "-o", "json", f"--service=payment={url}").stdout)
    declared = json.loads(saga("topology", "--permissions", "-o", "json").stdout)

    (its_own,) = [each for each in asked["permissions"] if each["user"] == "payment"]
    assert its_own in declared["permissions"]
    assert {each["name"] for each in asked["users"]} == {"admin", "saga", "payment"}


def test_topology_of_unreachable_service_ends_with_3(saga: Any):
    result = saga("topology", "--permissions", "--service=payment=http://127.0.0.1:1")

    assert (result.exit_code, result.stdout) == (3, "")


def test_permissions_follow_the_settings(saga: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAGA_LOGINS", '{"payment": ["pay-1", "pay-2"]}')
    monkeypatch.setenv("SAGA_EXCHANGE", "shop")
    monkeypatch.setenv("SAGA_BROKER_URL", "amqp://ada:h-u-s-h@h/orders")

    document = json.loads(saga("topology", "--permissions", "-o", "json").stdout)

    rights = {each["user"]: each for each in document["permissions"]}
    assert rights["pay-1"] == rights["pay-2"] | {"user": "pay-1"}
    assert (rights["pay-1"]["vhost"], "payment" in rights) == ("orders", False)
    assert rights["pay-1"]["configure"] == "^(shop[.]payment|shop[.]payment[.]dead)$"
    assert {"name": "pay-1", "password": "@PAY_1_PASSWORD@", "tags": []} in document["users"]
    assert [each["name"] for each in document["exchanges"]] == ["shop", "shop.dead"]


def test_only_saga_enders_may_publish_the_end(saga: Any):
    document = json.loads(saga("topology", "--permissions", "-o", "json").stdout)

    topics = [each for each in document["topic_permissions"] if each["exchange"] == "saga"]
    assert {each["user"] for each in topics if "SagaEnded" in each["write"]} == {"notification"}
    assert not any("*" in each["read"] or "+" in each["read"] for each in topics)
    assert not any("default" in each["write"] for each in document["permissions"] if each["user"] != "admin")


def test_services_that_a_secret_file_names_are_asked(saga, tmp_path, monkeypatch):
    (tmp_path / "services").write_text("payment=http://127.0.0.1:1")
    monkeypatch.setenv("SAGA_SERVICES_FILE", str(tmp_path / "services"))

    assert saga("topology").exit_code == 3
