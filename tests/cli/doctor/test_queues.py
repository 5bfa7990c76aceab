"""`saga doctor` at a real broker: each misconfiguration of queues is really made, and found with its cure."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.cli.doctor.findings import found, only, unchecked
from tests.cli.doctor.spoilt_broker import Broker, add_login, declare
from tests.eventually import eventually


def test_a_classic_queue_is_found_and_cured(doctor, broker: Broker, exchange: str):
    declare(broker, exchange, queue_type=None, delivery_limit=None, dead_letter_strategy=None, overflow=None)

    row = only(doctor("payment"), "queue arguments")

    assert "x-queue-type is classic, not quorum" in row["found"]
    assert f"rabbitmqctl delete_queue -p / {exchange}.payment" in row["cure"]
    broker.control("delete_queue", "-p", "/", f"{exchange}.payment")
    declare(broker, exchange)
    assert found(doctor("payment"), "queue arguments") == []


def test_a_queue_without_dead_letter_exchange_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange, dead_letter_exchange=None, dead_letter_routing_key=None, dead_letter_strategy=None)

    row = only(doctor("payment"), "queue arguments")

    assert row["service"] == "payment"
    assert f"x-dead-letter-exchange is not set, not {exchange}.dead" in row["found"]


@pytest.mark.parametrize(("limit", "shown"), [(None, "not set"), (3, "3")])
def test_another_delivery_limit_is_found(doctor, broker: Broker, exchange: str, limit: int | None, shown: str):
    declare(broker, exchange, delivery_limit=limit)

    row = only(doctor("payment"), "queue arguments")

    assert row["found"].startswith(f"{exchange}.payment: x-delivery-limit is {shown}, not ")


def test_all_differing_arguments_are_found_at_once(doctor, broker: Broker, exchange: str):
    declare(broker, exchange, overflow="drop-head", message_ttl=60_000, dead_letter_strategy="at-most-once")

    row = only(doctor("payment"), "queue arguments")

    assert "x-overflow is drop-head, not reject-publish" in row["found"]
    assert "x-message-ttl is 60000, not unset" in row["found"]
    assert "x-dead-letter-strategy is at-most-once, not at-least-once" in row["found"]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"delivery_limit": 3}, "x-delivery-limit is 3, not "),
        ({"message_ttl": 60_000}, "x-message-ttl is 60000, not unset"),
        ({"dead_letter_strategy": None}, "x-dead-letter-strategy is not set, not at-least-once"),
    ],
)
def test_amqp_alone_names_a_differing_argument(
    doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], shown: str
):
    declare(broker, exchange, **change)
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", "http://127.0.0.1:1")

    row = only(doctor("payment"), "queue arguments")

    assert row["found"].startswith(f"{exchange}.payment: {shown}")


def test_a_login_without_rights_needs_the_management(
    doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    declare(broker, exchange, delivery_limit=3)
    add_login(broker, "watcher", configure="^$", write=".*")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url("watcher", "hush-hush"))

    assert "x-delivery-limit is 3" in only(doctor("payment"), "queue arguments")["found"]
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", "http://127.0.0.1:1")
    rows = found(doctor("payment"), "queue arguments")
    assert [each["severity"] for each in rows] == ["unchecked", "unchecked"]
    assert rows[0]["found"].startswith(f"the arguments of {exchange}.payment are unknown: ")


def test_a_missing_queue_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.call("DELETE", f"queues/%2F/{exchange}.payment")

    result = doctor("payment")

    row = only(result, "queue")
    assert row["found"] == f"there is no queue {exchange}.payment"
    assert "both queues exist" not in result.stdout
    assert row["cure"] == f"`saga run payment`, with SAGA_EXCHANGE={exchange}"


def test_a_queue_without_a_consumer_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange)

    row = only(doctor("payment"), "consumer")

    assert row["found"] == f"no consumer of {exchange}.payment and {exchange}.payment.dead"


@pytest.mark.parametrize(
    ("kind", "definition", "shown", "severity"),
    [
        ("policies", {"message-ttl": 5_000}, "message-ttl=5000", "problem"),
        ("policies", {"expires": 90_000}, "expires=90000", "problem"),
        ("policies", {"delivery-limit": 20}, "delivery-limit=20", "problem"),
        ("policies", {"overflow": "drop-head"}, "overflow=drop-head", "problem"),
        ("policies", {"max-length": 5, "overflow": "drop-head"}, "max-length=5, overflow=drop-head", "problem"),
        ("policies", {"max-length": 5}, "max-length=5", "advice"),
        ("operator-policies", {"message-ttl": 5_000}, "message-ttl=5000", "problem"),
    ],
)
def test_a_policy_that_loses_messages_is_found(
    doctor, broker: Broker, exchange: str, kind: str, definition: dict[str, Any], shown: str, severity: str
):
    pattern = f"^{re.escape(exchange)}[.]payment$"
    broker.call("PUT", f"{kind}/%2F/{exchange}", {"pattern": pattern, "definition": definition, "apply-to": "queues"})
    declare(broker, exchange)

    row = eventual(doctor, "queue policy")

    broker.call("DELETE", f"{kind}/%2F/{exchange}")
    surplus = ": the surplus waits in outboxes" if severity == "advice" else ""
    assert (row["found"], row["severity"]) == (f"a policy sets {shown} of {exchange}.payment{surplus}", severity)
    command = "clear_operator_policy" if kind == "operator-policies" else "clear_policy"
    assert row["cure"] == f"rabbitmqctl {command} {exchange} -p /"


def test_a_bound_dead_letter_queue_is_found(doctor, broker: Broker, exchange: str):
    pattern = f"^{re.escape(exchange)}[.]payment[.]dead$"
    broker.call(
        "PUT", f"policies/%2F/{exchange}", {"pattern": pattern, "definition": {"max-length": 5}, "apply-to": "queues"}
    )
    declare(broker, exchange)

    row = eventual(doctor, "queue policy")

    broker.call("DELETE", f"policies/%2F/{exchange}")
    assert row["found"] == f"a policy sets max-length=5, overflow=drop-head of {exchange}.payment.dead"


def eventual(doctor, check: str) -> dict[str, Any]:
    """Return the only finding of a check, once there is one: the management's figures are some seconds old."""

    async def look() -> Any:
        return found(await asyncio.to_thread(doctor, "payment"), check)

    (row,) = asyncio.run(eventually(look, every=0.5))
    return dict(row)


def test_a_missing_binding_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange, without="shipping.ShipmentFailed")

    row = only(doctor("payment"), "binding")

    assert row["found"] == f"{exchange}.payment is not bound to shipping.ShipmentFailed"
    assert f"destination={exchange}.payment routing_key=shipping.ShipmentFailed" in row["cure"]


def test_a_queue_without_its_own_exchange_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange, without=f"{exchange}.payment")

    row = only(doctor("payment"), "binding")

    assert row["found"] == f"{exchange}.payment is not bound to its own exchange {exchange}.payment"


@pytest.mark.parametrize("key", ["shop.FormerEvent", "#"])
def test_a_former_release_s_binding_is_found(doctor, broker: Broker, exchange: str, key: str):
    declare(broker, exchange)
    broker.call("POST", f"bindings/%2F/e/{exchange}/q/{exchange}.payment", {"routing_key": key})

    row = only(doctor("payment"), "former binding")

    assert row["found"] == f"{exchange}.payment is bound to {key} of {exchange}, which payment does not consume"
    assert f"destination={exchange}.payment properties_key={key}" in row["cure"]


def test_a_former_service_s_queue_is_advice(doctor, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.call("PUT", f"queues/%2F/{exchange}.tap", {"durable": True})
    broker.call("POST", f"bindings/%2F/e/{exchange}/q/{exchange}.tap", {"routing_key": "order.OrderCreated"})

    row = eventual(doctor, "former queue")

    assert row["severity"] == "advice"
    assert row["found"] == f"{exchange}.tap has no consumer, and no examined service declares it"


def test_an_event_without_a_queue_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange)

    rows = found(doctor("payment"), "unroutable event")

    assert {each["found"]: each["service"] for each in rows} == {
        "no queue is bound to payment.PaymentProcessed": "payment",
        "no queue is bound to payment.PaymentFailed": "payment",
        "no queue is bound to payment.PaymentRefunded": "payment",
    }


def test_bindings_are_unchecked_without_the_management(
    doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    declare(broker, exchange)
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", "http://127.0.0.1:1")

    row = unchecked(doctor("payment"), "binding")

    assert "bindings, policies and all arguments are unknown: the management API at http://127.0.0.1:1" in row["found"]
    assert "SAGA_MANAGEMENT_URL=http://NAME:PASSWORD@HOST:15672" in row["cure"]
