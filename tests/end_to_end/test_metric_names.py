"""Every metric that a real service serves, those of its libraries included, keeps Prometheus' rules for names."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.observability_files import needs_prometheus, promtool
from tests.end_to_end.placed_orders import orders
from tests.servers import Server
from toolkit import Settings


@needs_prometheus
async def test_promtool_accepts_every_metric_of_a_service(rabbitmq: Server, tmp_path: Path, prefix: str):
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    fleet = Fleet(settings, sqlite_databases(tmp_path))
    (inventory,) = await fleet.start("inventory")
    await fleet.place(orders(3))

    async with httpx.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"http://127.0.0.1:{inventory.port}/metrics")).content
    await fleet.stop()

    assert b"faststream_" in page
    assert promtool("check", "metrics", page=page) == ""
