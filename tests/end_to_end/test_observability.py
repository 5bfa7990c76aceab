"""What the profile `observability` is made of: rules, dashboards and configurations, against the real services."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.breakable import free_port
from tests.end_to_end.fleet import SERVICES, Fleet, orders, sqlite_databases
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.endpoints import RabbitPublisher

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
RUNBOOKS = PROJECT / "docs/how-to/runbooks"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
#: What Prometheus itself adds to what it scrapes.
OF_PROMETHEUS = {"up"}

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is not installed: apt-get install prometheus",
)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def expressions() -> Iterator[str]:
    """Yield each query of the rules and of the dashboards, with all that the reader may choose chosen."""
    yield from (rule["expr"] for rule in rules())
    for path in DASHBOARDS:
        for panel in dashboard(path)["panels"]:
            yield from (re.sub(r"\$\w+", ".*", target["expr"]) for target in panel["targets"])


def names_in(expression: str) -> set[str]:
    """Return the metrics that a query names."""
    return set(re.findall(r"\b(?:saga|process|python|faststream)_[a-z_]+", re.sub(r"by \([^)]*\)", "", expression))) - {
        "saga_type"
    }


# -- the files ---------------------------------------------------------------------------------------------------


@needs_prometheus
def test_prometheus_finds_its_configuration_and_its_rules_sound():
    assert "SUCCESS" in promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))


@needs_prometheus
def test_each_rule_fires_when_it_should_and_not_before():
    assert "SUCCESS" in promtool("test", "rules", str(Path(__file__).parent / "alerts.test.yml"))


def test_each_rule_is_tested():
    tests = (Path(__file__).parent / "alerts.test.yml").read_text()

    fired = {test["alertname"] for each in yaml.safe_load(tests)["tests"] for test in each["alert_rule_test"]}

    assert {rule["alert"] for rule in rules()} <= fired


def test_each_alert_leads_to_a_page_that_says_what_to_do_and_each_page_is_led_to():
    led_to = {PROJECT / rule["annotations"]["runbook_url"] for rule in rules()}

    assert led_to == set(RUNBOOKS.glob("*.md"))
    for page in led_to:
        headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
        assert headings == ["What it means", "How to look", "What to do", "When it is over"], page


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path):
    board = dashboard(path)

    assert board["schemaVersion"] >= 39
    assert board["id"] is None  # a provisioned dashboard is known by its uid
    assert re.fullmatch(r"[a-z0-9-]{1,40}", board["uid"])
    assert {variable["type"] for variable in board["templating"]["list"]} == {"query"}
    sources = datasources()
    for panel in board["panels"]:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} | {panel["datasource"]["uid"]} <= sources
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert not overlapping([panel["gridPos"] for panel in board["panels"]])
    chosen = {name for panel in board["panels"] for t in panel["targets"] for name in re.findall(r"\$(\w+)", t["expr"])}
    assert chosen == {variable["name"] for variable in board["templating"]["list"]}


def test_dashboards_are_two_and_grafana_looks_where_compose_puts_them():
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/dashboards.yaml").read_text())["providers"]
    mounted = dict(volume.rsplit(":ro", 1)[0].split(":") for volume in compose("grafana")["volumes"] if ":ro" in volume)

    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == 2
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"


def test_the_collectors_pipelines_are_made_of_what_it_declares_and_end_where_compose_has_something():
    config = yaml.safe_load((DEPLOY / "collector/collector.yaml").read_text())

    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= config[kind].keys()
    assert pipeline["processors"][0] == "memory_limiter"
    host, port = config["exporters"]["otlp"]["endpoint"].split(":")
    assert (compose(host)["profiles"], port) == (["observability"], "4317")
    listens = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert f"SAGA_OTLP_ENDPOINT=http://collector:{listens}\n" in (DEPLOY / "observability.env").read_text()


def test_prometheus_scrapes_each_service_of_compose_where_it_listens():
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (found_by_name,) = job["dns_sd_configs"]

    assert found_by_name["names"] == list(SERVICES)
    assert f" SAGA_HEALTH_PORT={found_by_name['port']} " in (PROJECT / "Dockerfile").read_text()
    assert not [name for name in SERVICES if "SAGA_HEALTH_PORT" in compose(name)["environment"]]


def compose(service: str) -> dict[str, Any]:
    return yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"][service]


def datasources() -> set[str]:
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/datasources.yaml").read_text())
    return {source["uid"] for source in provisioned["datasources"]}


def overlapping(places: list[dict[str, int]]) -> bool:
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    return len(cells) != len(set(cells)) or any(x > 23 for x, _ in cells)


def promtool(*words: str) -> str:
    """Run promtool, which has to find all sound, and return what it says."""
    done = subprocess.run(["promtool", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- with the real services --------------------------------------------------------------------------------------


@needs_prometheus
async def test_a_real_prometheus_scrapes_real_services_and_its_alerts_fire_and_end(
    rabbitmq: Server, tmp_path: Path, prefix: str
):
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    hasty = {"SAGA_OVERDUE_AFTER": "1", "SAGA_WATCH_EVERY": "0.2", "SAGA_NUDGE_EVERY": "1"}
    fleet = Fleet(settings, sqlite_databases(tmp_path), environment=hasty)
    ports = {name: free_port() for name in SERVICES}
    async with prometheus(tmp_path, ports.values()) as asked:
        for name in SERVICES[:-1]:
            await fleet.launch(name, SAGA_HEALTH_PORT=str(ports[name]))
        await ready(asked, 3)

        # Ten orders, three of them bound to fail, while nobody is there who could end them; and one that is garbage.
        placed = orders(10)
        await fleet.place(placed)
        async with RabbitPublisher(settings) as publisher:
            await publisher.publish(WireMessage(b"garbage", "order.OrderCreated"))

        await firing(asked, "SagaStuckCompensating", service="inventory", saga_type="order")
        await firing(asked, "SagaStuckPending", service="shipping", saga_type="order")
        await firing(asked, "SagaRelayReturns", service="shipping")
        await firing(asked, "SagaDeadLetters", service="inventory")

        # Then somebody comes.
        await fleet.launch("notification", SAGA_HEALTH_PORT=str(ports["notification"]))
        await ready(asked, 4)
        await fleet.all_ended(placed)

        await silent(asked, "SagaStuckCompensating")
        await silent(asked, "SagaStuckPending")

        # More of them, so that the ends rise while Prometheus looks.
        await fleet.place(more := orders(10))
        await fleet.all_ended([*placed, *more])
        await firing(asked, "SagaCompletionRateLow", saga_type="order")

        exposed = await metric_names(ports.values())
        for expression in expressions():
            assert names_in(expression), expression
            assert names_in(expression) <= exposed | OF_PROMETHEUS, expression
            assert await query(asked, expression) is not None

        await fleet.kill("payment")
        await firing(asked, "SagaServiceGone", service="payment")
    await fleet.stop()


@asynccontextmanager
async def prometheus(folder: Path, ports: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run Prometheus with the rules as they are, but for how long they wait; yield what asks it."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"], job["scrape_timeout"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        rule.pop("for", None)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "alerts.yml").write_text(yaml.safe_dump(alerts))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def query(asked: httpx.AsyncClient, expression: str) -> list[dict[str, Any]] | None:
    """Return what Prometheus answers; None while it does not answer at all."""
    try:
        answer = await asked.get("/query", params={"query": expression})
    except httpx.TransportError:
        return None
    told = answer.json()
    assert told["status"] == "success", f"{expression}: {told}"
    return list(told["data"]["result"])


async def ready(asked: httpx.AsyncClient, services: int) -> None:
    """Wait until Prometheus has seen so many services with all that they need."""

    async def seen() -> bool:
        return len(await query(asked, "min by (service) (saga_ready) == 1") or []) == services

    await eventually(seen, within=60, every=0.2, what=f"{services} services that are ready")


async def alerts(asked: httpx.AsyncClient, name: str) -> list[dict[str, str]]:
    found = (await asked.get("/alerts")).json()["data"]["alerts"]
    return [each["labels"] for each in found if each["labels"]["alertname"] == name and each["state"] == "firing"]


async def firing(asked: httpx.AsyncClient, name: str, **labels: str) -> None:
    """Wait until the alert fires with these labels."""

    async def fires() -> bool:
        return any(labels.items() <= each.items() for each in await alerts(asked, name))

    await eventually(fires, within=30, every=0.2, what=f"{name} firing for {labels}")


async def silent(asked: httpx.AsyncClient, name: str) -> None:
    """Wait until the alert is over."""

    async def is_over() -> bool:
        return not await alerts(asked, name)

    await eventually(is_over, within=30, every=0.2, what=f"{name} over")


async def metric_names(ports: Any) -> set[str]:
    """Return the names of all samples that the services expose."""
    async with httpx.AsyncClient(trust_env=False) as client:
        pages = [(await client.get(f"http://127.0.0.1:{port}/metrics")).text for port in ports]
    return {s.name for page in pages for family in text_string_to_metric_families(page) for s in family.samples}
