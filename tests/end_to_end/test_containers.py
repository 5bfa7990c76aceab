"""The containers, on a real Docker engine: the README's commands, and restarts, limits and rights."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.end_to_end.shop import Shop
from tests.eventually import eventually
from tests.servers import docker_is_there

#: The first build fetches every dependency.
pytestmark = pytest.mark.timeout(600)

SERVICES = ("inventory", "payment", "shipping", "notification")
ALL = ("rabbitmq", "postgres", "console", *SERVICES)
PAID = ("process_payment", "completed", "PaymentProcessed")
RELEASED = ("reserve_inventory", "compensated", "InventoryReleased")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, so nothing can be run in containers")
    with Shop() as shop:
        yield shop


def test_an_order_is_fulfilled_right_after_the_start(shop: Shop):
    order = shop.trigger()

    assert PAID in shop.log("payment", order)


def test_a_refused_order_releases_the_goods(shop: Shop):
    order = shop.trigger("--set", "payment_method=card_declined", code=1)

    assert ("process_payment", "failed", "PaymentFailed") in shop.log("payment", order)
    assert RELEASED in shop.log("inventory", order)


async def test_the_console_shows_orders_after_signing_in(shop: Shop):
    order = shop.trigger()
    address = shop.compose("port", "console", "8080").strip()
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=20) as browser:

        async def answers() -> bool:
            return shop.is_healthy("console")

        await eventually(answers, what="the console")
        page = (await browser.get("/sign-in")).text
        (token,) = re.findall(r'name="token" value="([^"]+)"', page)
        anonymous = await browser.get(f"/sagas/{order}")
        await browser.post("/sign-in", data={"token": token, "name": "Grace", "secret": "demo-token-everybody-knows"})
        timeline = (await browser.get(f"/sagas/{order}?format=json")).json()

    assert anonymous.status_code == 303
    assert (timeline["state"], timeline["unreachable"]) == ("Completed", {})


def test_a_container_without_token_reports_the_setting(shop: Shop):
    done = shop.saga("run", "payment", variables=["SAGA_API_TOKEN=", "SAGA_HTTP_HOST=0.0.0.0"])

    assert done.returncode == 2
    assert "SAGA_API_TOKEN is not set" in done.stderr


def test_the_same_order_sent_again_is_paid_once(shop: Shop):
    order = shop.trigger()

    assert shop.trigger("--set", f"order_id={order}") == order

    assert shop.log("payment", order).count(PAID) == 1


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_is_ready_and_not_root(shop: Shop, service: str):
    async def health() -> bool:
        return shop.is_healthy(service)

    await eventually(health, what=f"a healthy {service}")

    assert shop.get(service, "/readyz") == {"broker": True, "database": True, "relay": True}
    assert shop.compose("exec", "-T", service, "id", "-u").strip() == "10001"


def test_a_container_has_limits_and_no_rights(shop: Shop):
    for name, state in shop.states().items():
        limits = state["HostConfig"]
        status = dict(line.split(":\t", 1) for line in shop.execute(state, "cat /proc/1/status").splitlines())

        assert 0 < limits["Memory"] <= 2**30, name
        assert 0 < limits["PidsLimit"] <= 1024, name
        assert (limits["CapAdd"], limits["SecurityOpt"]) == (None, ["no-new-privileges:true"]), name
        assert {int(status[each], 16) for each in ("CapEff", "CapPrm", "CapBnd")} == {0}, name
        assert status["NoNewPrivs"] == "1", name
        assert "0" not in status["Uid"].split(), name


def test_a_containers_root_filesystem_is_read_only(shop: Shop):
    places = "/ /etc /opt /usr/bin /var/lib"
    for name, state in shop.states().items():
        *refused, kept = shop.execute(
            state, f"for each in {places}; do touch $each/x 2>&1; done; touch /tmp/x && echo kept"
        ).splitlines()

        assert kept == "kept", name
        assert ["Read-only file system" in each for each in refused] == [True] * len(places.split()), name


def test_the_console_reaches_neither_broker_nor_database(shop: Shop):
    look_up = f"for each in {' '.join(ALL)}; do getent hosts $each >/dev/null && echo $each; done; true"

    found = shop.execute(shop.state_of("console"), look_up).split()

    assert found == ["console", *SERVICES]


def test_ports_are_bound_to_the_loopback_address_only(shop: Shop):
    states = shop.states()
    ports = [state["NetworkSettings"]["Ports"] for state in states.values()]

    bindings = [binding for each in ports for published in each.values() for binding in published or []]

    assert (set(states), len(bindings)) == (set(ALL), 8)
    assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}


def test_a_service_reaches_no_other_services_database(shop: Shop):
    command = "psql postgresql://payment:{password}@127.0.0.1/{database} -c 'SELECT 1' 2>&1 || true"

    def connect(database: str) -> str:
        script = command.format(password="$PAYMENT_PASSWORD", database=database)
        return shop.compose("exec", "-T", "postgres", "sh", "-c", script)

    assert "1 row" in connect("payment")
    for other in ("inventory", "shipping", "notification", "gateway", "postgres"):
        assert "permission denied" in connect(other)


def test_a_login_may_publish_its_own_events_only(shop: Shop):
    environment = shop.state_of("payment")["Config"]["Env"]
    broker = next(each for each in environment if each.startswith("SAGA_BROKER_URL="))

    refused = shop.saga("trigger", "OrderCreated", variables=[broker])

    assert refused.returncode != 0
    assert "write access to topic 'order.OrderCreated'" in refused.stderr + refused.stdout


def test_the_doctor_reports_the_demos_secrets_only(shop: Shop):
    examined = shop.saga("doctor", "--probe", "-o", "jsonl")

    findings = [json.loads(line) for line in examined.stdout.splitlines()]
    wrong = {each["check"] for each in findings if each["severity"] != "fine"}
    assert wrong == {"broker password", "api token", "demo token"}, examined.stdout
    assert examined.returncode == 1


async def test_a_stopped_service_drains_and_continues(shop: Shop):
    orders = set(shop.saga("trigger", "OrderCreated", "--count", "50").stdout.split())

    begun = time.monotonic()
    shop.compose("stop", "payment")
    stopped_after = time.monotonic() - begun
    exit_code = shop.state_of("payment")["State"]["ExitCode"]
    shop.compose("start", "payment")

    async def all_paid() -> bool:
        entries = shop.get("payment", "/log?limit=1000").get("entries", [])
        return orders <= {entry["saga_id"] for entry in entries if entry["to_state"] == "completed"}

    await eventually(all_paid, within=60, every=0.5, what="the payment of all orders")
    assert (exit_code, len(orders)) == (0, 50)
    assert stopped_after < 10
    assert "service stopped" in shop.compose("logs", "--no-color", "payment")


def test_reading_starts_no_stopped_service(shop: Shop):
    shop.compose("stop", "payment")

    report = shop.saga("attention")
    status = shop.state_of("payment")["State"]["Status"]
    shop.compose("start", "payment")

    assert (report.returncode, status) == (3, "exited")
    assert "payment  unreachable" in report.stdout


async def test_an_ended_service_is_restarted(shop: Shop):
    shop.compose("exec", "-T", "shipping", "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")

    async def is_back() -> bool:
        return shop.state_of("shipping")["RestartCount"] == 1 and bool(shop.get("shipping", "/readyz").get("broker"))

    await eventually(is_back, within=30, what="the shipping service")


async def test_orders_continue_after_both_servers_restarted(shop: Shop):
    async def is_back() -> bool:
        return shop.is_healthy("rabbitmq")

    shop.compose("restart", "rabbitmq", "postgres")
    await eventually(is_back, within=90, what="the broker")

    fulfilled = shop.trigger()
    refused = shop.trigger("--set", "payment_method=card_declined", code=1)

    assert PAID in shop.log("payment", fulfilled)
    assert RELEASED in shop.log("inventory", refused)


async def test_two_replicas_of_a_service_share_its_work(shop: Shop):
    async def are_there() -> bool:
        return shop.is_healthy("payment")

    shop.compose("up", "-d", "--scale", "payment=2")
    await eventually(are_there, within=90, what="both replicas")

    order = shop.trigger()

    assert shop.log("payment", order).count(PAID) == 1
    assert len(shop.compose("ps", "-q", "payment").split()) == 2
