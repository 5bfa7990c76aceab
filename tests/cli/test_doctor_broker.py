"""`saga doctor` at a real broker: each misconfiguration is really made there, and found with its cure."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import pytest

from services.payment.app import app as payment
from tests.cli.conftest import SERVICES, Saga
from tests.cli.findings import found, only, unchecked
from tests.cli.test_golden import assert_golden
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.lethal import bakery, order
from tests.end_to_end.proxy import Proxy
from tests.eventually import eventually
from tests.servers import RABBITMQ, Server, container_for, docker_is_there, wait_for_answer
from toolkit import Settings
from toolkit.app import App
from toolkit.declaration.events import routing_key
from toolkit.errors import BrokerRefusesError, SagaError
from toolkit.messaging.envelope import CONTROL_EVENTS
from toolkit.transport.rabbitmq.topology import declared_queues

LOGIN = ("ada", "hush-hush")
MANAGEMENT_PORT = 15672
KEYS = sorted(map(routing_key, (*payment.consumed(), *CONTROL_EVENTS)))


@dataclass(frozen=True)
class Broker:
    """A RabbitMQ of this file's own, whose settings may be spoilt."""

    host: str
    port: int
    management: str
    container: Any

    def url(self, login: str = LOGIN[0], password: str = LOGIN[1], host: str | None = None) -> str:
        return f"amqp://{login}:{password}@{host or self.host}:{self.port}/"

    def call(self, method: str, path: str, content: Any = None) -> None:
        with httpx.Client(base_url=self.management, auth=LOGIN, trust_env=False) as client:
            client.request(method, f"/api/{path}", json=content).raise_for_status()

    def control(self, *arguments: str) -> None:
        done = self.container.exec(["rabbitmqctl", "-q", *arguments])
        assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, and nobody else's broker shall be spoilt")
    container = container_for(RABBITMQ).with_exposed_ports(RABBITMQ.port, MANAGEMENT_PORT)
    container.with_env("RABBITMQ_DEFAULT_USER", LOGIN[0]).with_env("RABBITMQ_DEFAULT_PASS", LOGIN[1])
    with container:
        host = container.get_container_host_ip()
        port, management = (int(container.get_exposed_port(each)) for each in (RABBITMQ.port, MANAGEMENT_PORT))
        wait_for_answer(RABBITMQ, host, port)
        found = Broker(host, port, f"http://{host}:{management}", container)
        wait_for_management(found)
        yield found


def wait_for_management(broker: Broker) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            return broker.call("GET", "overview")
        except httpx.HTTPError:
            assert time.monotonic() < until, "the management API did not come"
            time.sleep(0.1)


@pytest.fixture
def exchange(broker: Broker, prefix: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An exchange's name of the test's own; what was declared under it is swept away."""
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url())
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", broker.management.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@"))
    monkeypatch.setenv("SAGA_EXCHANGE", prefix)
    yield prefix
    asyncio.run(sweep(broker.url(), prefix))


async def sweep(url: str, exchange: str) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for queue in (f"{exchange}.payment", f"{exchange}.payment.dead", f"{exchange}.tap"):
            await channel.queue_delete(queue)
        for each in (exchange, f"{exchange}.dead", f"{exchange}.payment", f"{exchange}.unheard"):
            await channel.exchange_delete(each)


def declare(broker: Broker, exchange: str, *, without: str = "", kind: str = "topic", **changes: Any) -> None:
    """Declare what payment does, with these changes of its queue's arguments; None leaves one out."""
    asyncio.run(
        _declare(broker.url(), exchange, without, kind, {f"x-{k.replace('_', '-')}": v for k, v in changes.items()})
    )


async def _declare(url: str, exchange: str, without: str, kind: str, changes: dict[str, Any]) -> None:
    queue, dead_queue = declared_queues(Settings(exchange=exchange), "payment")
    arguments = {name: value for name, value in ((queue.arguments or {}) | changes).items() if value is not None}
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        main = await channel.declare_exchange(exchange, kind, durable=True)
        dead = await channel.declare_exchange(f"{exchange}.dead", "topic", durable=True)
        its_queue = await channel.declare_queue(queue.name, durable=True, arguments=arguments)
        its_dead = await channel.declare_queue(dead_queue.name, durable=True, arguments=dead_queue.arguments)
        await its_dead.bind(dead, routing_key=queue.name)
        own = await channel.declare_exchange(queue.name, "fanout", durable=True)
        if without != queue.name:
            await its_queue.bind(own, routing_key="")
        for key in KEYS:
            if key != without:
                await its_queue.bind(main, routing_key=key)


# -- the queue -----------------------------------------------------------------------------------------------------


def test_a_classic_queue_is_found_and_its_cure_cures_it(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange, queue_type=None, delivery_limit=None, dead_letter_strategy=None, overflow=None)

    row = only(saga("doctor", "payment", "-o", "json"), "queue type")

    assert row["found"] == f"{exchange}.payment is a classic queue, not a quorum queue"
    assert f"rabbitmqctl delete_queue -p / {exchange}.payment" in row["cure"]
    broker.control("delete_queue", "-p", "/", f"{exchange}.payment")
    declare(broker, exchange)
    assert found(saga("doctor", "payment", "-o", "json"), "queue type") == []


def test_a_queue_without_a_dead_letter_exchange_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange, dead_letter_exchange=None, dead_letter_routing_key=None, dead_letter_strategy=None)

    row = only(saga("doctor", "payment", "-o", "json"), "dead-letter exchange")

    assert (row["service"], row["found"]) == ("payment", f"{exchange}.payment has no dead-letter exchange")


@pytest.mark.parametrize(
    ("limit", "told"), [(None, "names no delivery limit"), (3, "gives a message up after 3 deliveries")]
)
def test_another_delivery_limit_is_found(saga: Saga, broker: Broker, exchange: str, limit: int | None, told: str):
    declare(broker, exchange, delivery_limit=limit)

    row = only(saga("doctor", "payment", "-o", "json"), "delivery limit")

    assert row["found"] == f"{exchange}.payment {told}"


def test_every_other_argument_is_found_at_once(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange, overflow="drop-head", message_ttl=60_000, dead_letter_strategy="at-most-once")

    row = only(saga("doctor", "payment", "-o", "json"), "queue arguments")

    assert "x-overflow is drop-head, not reject-publish" in row["found"]
    assert "x-message-ttl is 60000, not unset" in row["found"]
    assert "x-dead-letter-strategy is at-most-once, not at-least-once" in row["found"]


def test_a_login_that_may_not_declare_learns_the_same_from_the_management(
    saga: Saga, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    declare(broker, exchange, delivery_limit=3)
    add_login(broker, "watcher", configure="^$", write=".*")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url("watcher", "hush-hush"))

    row = only(saga("doctor", "payment", "-o", "json"), "delivery limit")

    assert row["found"] == f"{exchange}.payment gives a message up after 3 deliveries"


def test_a_missing_queue_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.call("DELETE", f"queues/%2F/{exchange}.payment")

    result = saga("doctor", "payment", "-o", "json")

    row = only(result, "queue")
    assert row["found"] == f"there is no queue {exchange}.payment"
    assert "both queues are there" not in result.stdout
    assert row["cure"] == f"saga run payment, with SAGA_EXCHANGE={exchange}"


def test_a_queue_that_nobody_takes_from_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange)

    row = only(saga("doctor", "payment", "-o", "json"), "consumer")

    assert row["found"] == f"nobody takes from {exchange}.payment and {exchange}.payment.dead"


@pytest.mark.parametrize(
    ("kind", "definition", "told", "verdict"),
    [
        ("policies", {"message-ttl": 5_000}, "message-ttl=5000", "problem"),
        ("policies", {"expires": 90_000}, "expires=90000", "problem"),
        ("policies", {"delivery-limit": 20}, "delivery-limit=20", "problem"),
        ("policies", {"overflow": "drop-head"}, "overflow=drop-head", "problem"),
        ("policies", {"max-length": 5, "overflow": "drop-head"}, "max-length=5, overflow=drop-head", "problem"),
        ("policies", {"max-length": 5}, "max-length=5: what is more waits in outboxes", "advice"),
        ("operator-policies", {"message-ttl": 5_000}, "message-ttl=5000", "problem"),
    ],
)
def test_a_policy_that_overrides_what_keeps_messages_is_found(
    saga: Saga, broker: Broker, exchange: str, kind: str, definition: dict[str, Any], told: str, verdict: str
):
    pattern = f"^{re.escape(exchange)}[.]payment$"
    policy = {"pattern": pattern, "definition": definition, "apply-to": "queues"}
    broker.call("PUT", f"{kind}/%2F/{exchange}", policy)
    declare(broker, exchange)

    async def look() -> Any:  # what the management tells of queues is some seconds old
        return found(await asyncio.to_thread(saga, "doctor", "payment", "-o", "json"), "queue policy")

    (row,) = asyncio.run(eventually(look, every=0.5))

    broker.call("DELETE", f"{kind}/%2F/{exchange}")
    assert (row["found"], row["verdict"]) == (f"a policy gives {exchange}.payment {told}", verdict)
    command = "clear_operator_policy" if kind == "operator-policies" else "clear_policy"
    assert row["cure"] == f"rabbitmqctl {command} {exchange} -p /"


def test_a_bound_on_a_dead_letter_queue_is_found(saga: Saga, broker: Broker, exchange: str):
    pattern = f"^{re.escape(exchange)}[.]payment[.]dead$"
    broker.call(
        "PUT", f"policies/%2F/{exchange}", {"pattern": pattern, "definition": {"max-length": 5}, "apply-to": "queues"}
    )
    declare(broker, exchange)

    async def look() -> Any:
        return found(await asyncio.to_thread(saga, "doctor", "payment", "-o", "json"), "queue policy")

    (row,) = asyncio.run(eventually(look, every=0.5))

    broker.call("DELETE", f"policies/%2F/{exchange}")
    assert row["found"] == f"a policy gives {exchange}.payment.dead max-length=5, overflow=drop-head"


# -- the way to it -------------------------------------------------------------------------------------------------


def test_a_missing_binding_is_found_and_the_event_that_it_loses(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange, without="shipping.ShipmentFailed")

    result = saga("doctor", "payment", "-o", "json")

    row = only(result, "binding")
    assert row["found"] == f"{exchange}.payment is not bound to shipping.ShipmentFailed"
    assert f"destination={exchange}.payment routing_key=shipping.ShipmentFailed" in row["cure"]


def test_a_queue_that_its_own_exchange_does_not_lead_to_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange, without=f"{exchange}.payment")

    row = only(saga("doctor", "payment", "-o", "json"), "binding")

    assert row["found"] == f"{exchange}.payment is not bound to its own exchange {exchange}.payment"


@pytest.mark.parametrize("key", ["shop.FormerEvent", "#"])
def test_a_binding_that_a_former_release_left_is_found(saga: Saga, broker: Broker, exchange: str, key: str):
    declare(broker, exchange)
    broker.call("POST", f"bindings/%2F/e/{exchange}/q/{exchange}.payment", {"routing_key": key})

    row = only(saga("doctor", "payment", "-o", "json"), "former binding")

    assert row["found"] == f"{exchange}.payment is bound to {key} of {exchange}, which payment does not consume"
    assert f"destination={exchange}.payment properties_key={key}" in row["cure"]


def test_a_queue_that_a_former_service_left_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.call("PUT", f"queues/%2F/{exchange}.tap", {"durable": True})
    broker.call("POST", f"bindings/%2F/e/{exchange}/q/{exchange}.tap", {"routing_key": "order.OrderCreated"})

    async def look() -> Any:  # what the management tells of queues is some seconds old
        return found(await asyncio.to_thread(saga, "doctor", "payment", "-o", "json"), "former queue")

    (row,) = asyncio.run(eventually(look, every=0.5))

    assert row["verdict"] == "advice"
    assert row["found"] == f"nothing takes from {exchange}.tap, and no service that was examined declares it"


def test_an_event_that_no_queue_is_bound_to_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange)

    rows = found(saga("doctor", "payment", "-o", "json"), "unroutable event")

    told = {each["found"]: each["service"] for each in rows}
    assert told == {
        "no queue is bound to payment.PaymentProcessed": "payment",
        "no queue is bound to payment.PaymentFailed": "payment",
        "no queue is bound to payment.PaymentRefunded": "payment",
    }


def test_an_exchange_of_another_kind_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange, kind="direct")

    row = only(saga("doctor", "payment", "-o", "json"), "exchange")

    assert row["found"] == f"the exchange {exchange} has type 'direct', not 'topic'"


def test_a_former_exchange_of_dead_letters_is_found_by_a_login_that_may_not_declare_it(
    saga: Saga, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    declare(broker, exchange)
    broker.call("DELETE", f"exchanges/%2F/{exchange}.dead")
    broker.call("PUT", f"exchanges/%2F/{exchange}.dead", {"type": "direct", "durable": True})
    add_login(broker, "client", configure="^$", write=".*")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url("client", "hush-hush"))

    row = only(saga("doctor", "payment", "-o", "json"), "exchange")

    assert row["found"] == f"the exchange {exchange}.dead has type 'direct', not 'topic'"


@pytest.mark.parametrize("is_alternate", [True, False])
def test_returns_that_somebody_swallows_are_found(saga: Saga, broker: Broker, exchange: str, is_alternate: bool):
    declare(broker, exchange)
    if is_alternate:
        broker.call("PUT", f"exchanges/%2F/{exchange}.unheard", {"type": "fanout"})
        definition = {"alternate-exchange": f"{exchange}.unheard"}
        policy = {"pattern": f"^{re.escape(exchange)}$", "definition": definition, "apply-to": "exchanges"}
        broker.call("PUT", f"policies/%2F/{exchange}", policy)
    broker.call("PUT", f"queues/%2F/{exchange}.tap", {"durable": True})
    source = f"{exchange}.unheard" if is_alternate else exchange
    broker.call("POST", f"bindings/%2F/e/{source}/q/{exchange}.tap", {"routing_key": "#"})

    row = only(saga("doctor", "payment", "-o", "json"), "returns")

    assert "the broker confirmed a message to saga.Probe, which nobody listens to" in row["found"]
    assert "rabbitmqctl list_policies" in row["cure"]
    if is_alternate:
        assert f"look at the policy {exchange} of the exchange" in row["found"]
        broker.call("DELETE", f"policies/%2F/{exchange}")


# -- the broker itself ---------------------------------------------------------------------------------------------


def add_login(broker: Broker, name: str, password: str = "hush-hush", *, configure: str = ".*", write: str) -> None:
    broker.call("PUT", f"users/{name}", {"password": password, "tags": "monitoring"})
    broker.call("PUT", f"permissions/%2F/{name}", {"configure": configure, "write": write, "read": ".*"})


def test_a_login_that_may_not_publish_is_found(
    saga: Saga, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    declare(broker, exchange)
    add_login(broker, "reader", write="^$")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url("reader", "hush-hush"))

    row = only(saga("doctor", "payment", "-o", "json"), "right to publish")

    assert "the login reader may not publish" in row["found"]
    assert row["cure"].startswith("rabbitmqctl set_permissions -p / reader")


@pytest.mark.parametrize(("configure", "write"), [("^$", ".*"), (".*", "^$")])
async def test_a_service_whose_login_lacks_a_right_ends_its_start_with_the_cure(
    broker: Broker, prefix: str, tmp_path: Path, configure: str, write: str
):
    add_login(broker, "baker", configure=configure, write=write)
    app = App(bakery, Settings(broker_url=broker.url("baker", "hush-hush"), exchange=prefix, data_dir=tmp_path))

    with pytest.raises(BrokerRefusesError, match=r"ACCESS_REFUSED.*; rabbitmqctl set_permissions -p / baker"):
        await app.start()

    await app.stop()


async def test_a_service_that_may_not_publish_is_not_ready_until_it_may(broker: Broker, prefix: str, tmp_path: Path):
    add_login(broker, "baker", write=f"^{re.escape(prefix)}[.].*")
    app = App(bakery, Settings(broker_url=broker.url("baker", "hush-hush"), exchange=prefix, data_dir=tmp_path))
    await app.start()

    with pytest.raises(BrokerRefusesError, match=f"write access to exchange '{prefix}'"):
        await app.publisher.publish(order(1, is_lethal=False))
    assert not (await app.readiness())["broker"]
    add_login(broker, "baker", write=".*")

    async def is_published() -> bool:
        try:
            await app.publisher.publish(order(1, is_lethal=False))
        except SagaError:
            return False
        return True

    await eventually(is_published, every=0.5)
    assert (await app.readiness())["broker"]
    await app.stop()


@pytest.mark.parametrize(("host", "verdict"), [("0.0.0.0", "problem"), (None, "advice")])
def test_a_default_password_is_a_problem_where_others_reach_the_broker(
    saga: Saga, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch, host: str | None, verdict: str
):
    declare(broker, exchange)
    add_login(broker, "guest", "guest", write=".*")
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url(host=host))

    row = only(saga("doctor", "payment", "-o", "json"), "broker password", verdict=verdict)

    assert row["found"] == "guest gets in by the password guest"
    assert "rabbitmqctl delete_user guest" in row["cure"]
    broker.call("DELETE", "users/guest")


def test_a_message_bigger_than_the_broker_takes_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.control("eval", "persistent_term:put(max_message_size, 100000).")
    try:
        row = only(saga("doctor", "payment", "-o", "json"), "message size")
    finally:
        broker.control("eval", "persistent_term:put(max_message_size, 16777216).")

    assert "the broker does not take 262144 bytes" in row["found"]
    assert "raise max_message_size in rabbitmq.conf to 262144" in row["cure"]


def test_a_broker_that_is_short_of_memory_is_found(saga: Saga, broker: Broker, exchange: str):
    declare(broker, exchange)
    broker.control("set_vm_memory_high_watermark", "0.000001")
    try:
        row = only(saga("doctor", "payment", "-o", "json"), "broker alarm")
    finally:
        broker.control("set_vm_memory_high_watermark", "0.6")

    assert row["found"].endswith("is short of memory")


def test_a_broker_that_is_too_old_is_found(saga: Saga, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch):
    declare(broker, exchange)

    async def look() -> Any:
        async with AgeingProxy(broker.url()) as proxy:
            monkeypatch.setenv("SAGA_BROKER_URL", proxy.through(broker.url()))
            return await asyncio.to_thread(saga, "doctor", "payment", "-o", "json")

    row = only(asyncio.run(look()), "broker version")

    assert re.fullmatch(r"RabbitMQ 3\S+ is too old", row["found"])
    assert row["cure"] == "upgrade to RabbitMQ 4 or newer"


class AgeingProxy(Proxy):
    """Passes on all, but for the broker's word on its version."""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write = writer.write
        writer.write = lambda data: write(re.sub(rb"(versionS....)4", rb"\g<1>3", data, flags=re.DOTALL))  # type: ignore[method-assign] # a real server's bytes, all but one
        await super()._accept(reader, writer)


# -- what could not be asked ---------------------------------------------------------------------------------------


def test_what_needs_the_management_api_is_named_where_that_is_not_there(
    saga: Saga, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    declare(broker, exchange)
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", "http://127.0.0.1:1")

    result = saga("doctor", "payment", "-o", "json")

    row = unchecked(result, "binding")
    assert "bindings and policies were not asked for: the management API at http://127.0.0.1:1" in row["found"]
    assert "SAGA_MANAGEMENT_URL=http://NAME:PASSWORD@HOST:15672" in row["cure"]


def test_the_management_of_another_broker_is_not_taken_for_ours(
    saga: Saga, broker: Broker, exchange: str, rabbitmq: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAGA_BROKER_URL", rabbitmq.url)

    row = unchecked(saga("doctor", "payment", "-o", "json"), "binding")

    assert "that is another broker" in row["found"]


@pytest.mark.parametrize("fault", ["login", "silence"])
def test_a_broker_that_does_not_let_us_in_ends_with_three(
    saga: Saga, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch, fault: str
):
    url = broker.url(password="wrong") if fault == "login" else "amqp://ada:hush-hush@127.0.0.1:1/"
    monkeypatch.setenv("SAGA_BROKER_URL", url)

    result = saga("doctor", "payment", "-o", "json")

    row = only(result, "broker", verdict="unchecked")
    assert ("refuses us" if fault == "login" else "does not answer") in row["found"]
    assert "hush-hush" not in result.output


# -- all of it, well -----------------------------------------------------------------------------------------------


def test_four_running_services_are_healthy(
    saga: Saga, broker: Broker, exchange: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
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
        told = {each: saga("doctor", *in_files, "-o", each) for each in ("table", "jsonl")}
        return saga("doctor", *over_http, "-o", "json"), told

    over_http, in_files = asyncio.run(with_fleet(look))

    told = json.loads(over_http.stdout)
    assert (over_http.exit_code, [each for each in told if each["verdict"] != "fine"]) == (0, [])
    for output, result in in_files.items():
        shown = result.stdout.replace(f"{broker.host}:{broker.port}", "ADDRESS")
        shown = re.sub(r" +$", "", shown, flags=re.MULTILINE)  # as wide as the address
        assert result.exit_code == 0, shown
        today = (r"RabbitMQ [\d.]+", r"\b\d+(?= variables are set)")
        assert_golden(f"doctor-healthy.{output}.txt", shown, result.stderr, tmp_path, *today)
