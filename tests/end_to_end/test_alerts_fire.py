"""A real Prometheus scrapes real services: its alerts fire and end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.breakable import free_port
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.observability_files import DEPLOY, expressions, names_in, needs_prometheus
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: Prometheus's own metrics of a scrape.
OF_PROMETHEUS = {"up"}


@needs_prometheus
async def test_alerts_of_real_services_fire_and_end(rabbitmq: Server, tmp_path: Path, prefix: str):
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    hasty = {"SAGA_OVERDUE_AFTER": "1", "SAGA_WATCH_EVERY": "0.2", "SAGA_NUDGE_EVERY": "1"}
    fleet = Fleet(settings, sqlite_databases(tmp_path), environment=hasty)
    ports = {name: free_port() for name in SERVICES}
    async with prometheus(tmp_path, ports.values()) as api:
        for name in SERVICES[:-1]:
            await fleet.launch(name, SAGA_HEALTH_PORT=str(ports[name]))
        await ready(api, 3)

        # Ten orders, three of them failing, without the service that ends them; and an unreadable one.
        placed = orders(10)
        await fleet.place(placed)
        async with RabbitPublisher(settings) as publisher:
            await publisher.publish(WireMessage(b"garbage", "order.OrderCreated"))

        await firing(api, "SagaStuckCompensating", service="inventory", saga_type="order")
        await firing(api, "SagaStuckPending", service="shipping", saga_type="order")
        await firing(api, "SagaRelayReturns", service="shipping")
        await firing(api, "SagaDeadLetters", service="inventory")

        # Then the missing service starts.
        await fleet.launch("notification", SAGA_HEALTH_PORT=str(ports["notification"]))
        await ready(api, 4)
        await fleet.all_ended(placed)

        await silent(api, "SagaStuckCompensating")
        await silent(api, "SagaStuckPending")

        # More orders, so that the counts of ends rise during scrapes.
        await fleet.place(more := orders(10))
        await fleet.all_ended([*placed, *more])
        await firing(api, "SagaCompletionRateLow", saga_type="order")

        await check_queries(api, await metric_names(ports.values()))

        await fleet.kill("payment")
        await firing(api, "SagaServiceGone", service="payment")
    await fleet.stop()


async def check_queries(api: httpx.AsyncClient, exposed: set[str]) -> None:
    """Check that each query of rules and dashboards names exposed metrics, and is accepted by Prometheus."""
    for expression in expressions():
        assert names_in(expression), expression
        assert names_in(expression) <= exposed | OF_PROMETHEUS, expression
        assert await query(api, expression) is not None


@asynccontextmanager
async def prometheus(folder: Path, ports: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run Prometheus with the rules, without their `for`; yield a client of its API."""
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


async def query(api: httpx.AsyncClient, expression: str) -> list[dict[str, Any]] | None:
    """Return the result of a query; None while Prometheus does not answer."""
    try:
        answer = await api.get("/query", params={"query": expression})
    except httpx.TransportError:
        return None
    content = answer.json()
    assert content["status"] == "success", f"{expression}: {content}"
    return list(content["data"]["result"])


async def ready(api: httpx.AsyncClient, services: int) -> None:
    """Wait until Prometheus has scraped so many ready services."""

    async def seen() -> bool:
        return len(await query(api, "min by (service) (saga_ready) == 1") or []) == services

    await eventually(seen, within=60, every=0.2, what=f"{services} services that are ready")


async def alerts(api: httpx.AsyncClient, name: str) -> list[dict[str, str]]:
    found = (await api.get("/alerts")).json()["data"]["alerts"]
    return [each["labels"] for each in found if each["labels"]["alertname"] == name and each["state"] == "firing"]


async def firing(api: httpx.AsyncClient, name: str, **labels: str) -> None:
    """Wait until the alert fires with these labels."""

    async def fires() -> bool:
        return any(labels.items() <= each.items() for each in await alerts(api, name))

    await eventually(fires, within=30, every=0.2, what=f"{name} firing for {labels}")


async def silent(api: httpx.AsyncClient, name: str) -> None:
    """Wait until the alert is over."""

    async def is_over() -> bool:
        return not await alerts(api, name)

    await eventually(is_over, within=30, every=0.2, what=f"{name} over")


async def metric_names(ports: Any) -> set[str]:
    """Return the names of all samples that the services expose."""
    async with httpx.AsyncClient(trust_env=False) as client:
        pages = [(await client.get(f"http://127.0.0.1:{port}/metrics")).text for port in ports]
    return {s.name for page in pages for family in text_string_to_metric_families(page) for s in family.samples}
