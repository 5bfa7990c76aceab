"""`saga doctor` at a real broker: each misconfiguration of it is really made, and found with its cure."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SERVICES, Saga
from tests.cli.doctor.findings import only, unchecked
from tests.cli.doctor.spoilt_broker import Broker, add_login, declare
from tests.cli.test_golden import assert_golden
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.proxy import Proxy
from tests.servers import Server
from toolkit import Settings


def test_an_exchange_of_another_type_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange, kind="direct")

    row = only(doctor("payment"), "exchange")

    assert row["found"] == f"the exchange {exchange} has type 'direct', not 'topic'"


def test_the_management_names_a_former_dead_letter_exchange(
    doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    declare(broker, exchange)
    broker.call("DELETE", f"exchanges/%2F/{exchange}.dead")
    broker.call("PUT", f"exchanges/%2F/{exchange}.dead", {"type": "direct", "durable": True})
    add_login(broker, "client", configure="^$", write=".*")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url("client", "hush-hush"))

    row = only(doctor("payment"), "exchange")

    assert row["found"] == f"the exchange {exchange}.dead has type 'direct', not 'topic'"


@pytest.mark.parametrize("is_alternate", [True, False])
def test_a_swallowed_message_is_found(doctor, broker: Broker, exchange: str, is_alternate: bool):
    declare(broker, exchange)
    if is_alternate:
        broker.call("PUT", f"exchanges/%2F/{exchange}.unheard", {"type": "fanout"})
        definition = {"alternate-exchange": f"{exchange}.unheard"}
        policy = {"pattern": f"^{re.escape(exchange)}$", "definition": definition, "apply-to": "exchanges"}
        broker.call("PUT", f"policies/%2F/{exchange}", policy)
    broker.call("PUT", f"queues/%2F/{exchange}.tap", {"durable": True})
    source = f"{exchange}.unheard" if is_alternate else exchange
    broker.call("POST", f"bindings/%2F/e/{source}/q/{exchange}.tap", {"routing_key": "#"})

    row = only(doctor("payment", "--probe"), "returns")

    assert "the broker confirmed a message to saga.Probe, a key without a consumer" in row["found"]
    assert "rabbitmqctl list_policies" in row["cure"]
    if is_alternate:
        assert f"see the policy {exchange} of the exchange" in row["found"]
        broker.call("DELETE", f"policies/%2F/{exchange}")


def test_a_login_that_may_not_publish_is_found(doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch):
    declare(broker, exchange)
    add_login(broker, "reader", write="^$")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url("reader", "hush-hush"))

    row = only(doctor("payment", "--probe"), "right to publish")

    assert "the login reader may not publish" in row["found"]
    assert row["cure"].startswith("`rabbitmqctl set_permissions -p / reader")


@pytest.mark.parametrize(("host", "severity"), [("0.0.0.0", "problem"), (None, "advice")])
def test_a_well_known_broker_password_is_found(
    doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch, host: str | None, severity: str
):
    declare(broker, exchange)
    add_login(broker, "guest", "guest", write=".*")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url(host=host))

    row = only(doctor("payment", "--probe"), "broker password", severity=severity)

    assert row["found"] == "the password of guest is guest"
    assert "rabbitmqctl delete_user guest" in row["cure"]
    broker.call("DELETE", "users/guest")


def test_a_limit_on_message_size_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.control("eval", "persistent_term:put(max_message_size, 100000).")
    try:
        row = only(doctor("payment", "--probe"), "message size")
    finally:
        broker.control("eval", "persistent_term:put(max_message_size, 16777216).")

    assert "the broker refuses 262144 bytes" in row["found"]
    assert "raise max_message_size in rabbitmq.conf to 262144" in row["cure"]


def test_a_broker_short_of_memory_is_found(doctor, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.control("set_vm_memory_high_watermark", "0.000001")
    try:
        row = only(doctor("payment"), "broker alarm")
    finally:
        broker.control("set_vm_memory_high_watermark", "0.6")

    assert row["found"].endswith("is short of memory")


def test_an_old_broker_is_found(doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch):
    declare(broker, exchange)

    async def look() -> Any:
        async with AgeingProxy(broker.url()) as proxy:
            monkeypatch.setenv("SAGA_BROKER_URL", proxy.through(broker.url()))
            return await asyncio.to_thread(doctor, "payment")

    row = only(asyncio.run(look()), "broker version")

    assert re.fullmatch(r"RabbitMQ 3\S+ is too old", row["found"])
    assert row["cure"] == "upgrade to RabbitMQ 4 or newer"


class AgeingProxy(Proxy):
    """Passes everything on, except the first digit of the broker's version."""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write = writer.write
        writer.write = lambda data: write(re.sub(rb"(versionS....)4", rb"\g<1>3", data, flags=re.DOTALL))  # type: ignore[method-assign] # a real server's bytes, all but one
        await super()._accept(reader, writer)


def test_another_broker_s_management_is_refused(
    doctor, broker: Broker, exchange: str, rabbitmq: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAGA_BROKER_URL", rabbitmq.url)

    row = unchecked(doctor("payment"), "binding")

    assert "it is another broker" in row["found"]


@pytest.mark.parametrize("fault", ["login", "silence"])
def test_a_broker_that_refuses_us_ends_with_three(
    doctor, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch, fault: str
):
    url = broker.url(password="wrong") if fault == "login" else "amqp://ada:hush-hush@127.0.0.1:1/"
    monkeypatch.setenv("SAGA_BROKER_URL", url)

    result = doctor("payment", "--probe")

    row = only(result, "broker", severity="unchecked")
    assert ("refuses us" if fault == "login" else "does not answer") in row["found"]
    assert "hush-hush" not in result.output


def test_four_running_services_are_healthy(saga: Saga, broker: Broker, exchange: str, tmp_path: Path):
    async def with_fleet(look: Callable[[Fleet], Any]) -> Any:
        fleet = Fleet(
            Settings(broker_url=broker.url(), exchange=exchange, data_dir=tmp_path), sqlite_databases(tmp_path)
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(fleet.stop)
            await asyncio.gather(*(fleet.start(name) for name in SERVICES))
            return await asyncio.to_thread(look, fleet)

    def look(fleet: Fleet) -> tuple[Any, dict[str, Any]]:
        over_http = [f"--service={each.name}=http://127.0.0.1:{each.port}" for each in fleet.replicas]
        in_files = [f"--service={name}=sqlite:///{tmp_path}/{name}.db" for name in SERVICES]
        results = {each: saga("doctor", *in_files, "--probe", "-o", each) for each in ("table", "jsonl")}
        return saga("doctor", *over_http, "-o", "json"), results

    over_http, in_files = asyncio.run(with_fleet(look))

    assert over_http.exit_code == 0
    assert [each for each in json.loads(over_http.stdout) if each["severity"] != "fine"] == []
    for output, result in in_files.items():
        shown = result.stdout.replace(f"{broker.host}:{broker.port}", "ADDRESS")
        shown = re.sub(r" +$", "", shown, flags=re.MULTILINE)  # as wide as the address
        assert result.exit_code == 0, shown
        today = (r"RabbitMQ [\d.]+", r"\b\d+(?= variables are set)")
        assert_golden(f"doctor-healthy.{output}.txt", shown, result.stderr, tmp_path, *today)
