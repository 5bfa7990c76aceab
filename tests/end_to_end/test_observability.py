"""The files of the profile `observability`: rules, dashboards and configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.observability_files import (
    DASHBOARDS,
    DEPLOY,
    PROJECT,
    RUNBOOKS,
    dashboard,
    needs_prometheus,
    promtool,
    rules,
)
from tests.end_to_end.placed_orders import SERVICES


@needs_prometheus
def test_promtool_accepts_configuration_and_rules():
    assert "SUCCESS" in promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))


@needs_prometheus
def test_each_rule_fires_as_its_test_expects():
    assert "SUCCESS" in promtool("test", "rules", str(Path(__file__).parent / "alerts.test.yml"))


def test_each_rule_is_tested():
    tests = (Path(__file__).parent / "alerts.test.yml").read_text()

    fired = {test["alertname"] for each in yaml.safe_load(tests)["tests"] for test in each["alert_rule_test"]}

    assert {rule["alert"] for rule in rules()} <= fired


def test_each_alert_links_a_complete_runbook():
    linked = {PROJECT / rule["annotations"]["runbook_url"] for rule in rules()}

    assert linked == set(RUNBOOKS.glob("*.md"))
    for page in linked:
        headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
        assert headings == ["What it means", "How to look", "What to do", "When it is over"], page


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_complete(path: Path):
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


def test_grafana_loads_both_mounted_dashboards():
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/dashboards.yaml").read_text())["providers"]
    mounted = dict(volume.rsplit(":ro", 1)[0].split(":") for volume in compose("grafana")["volumes"] if ":ro" in volume)

    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == 2
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"


def test_the_collectors_pipelines_use_declared_parts():
    config = yaml.safe_load((DEPLOY / "collector/collector.yaml").read_text())

    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= config[kind].keys()
    assert pipeline["processors"][0] == "memory_limiter"
    host, port = config["exporters"]["otlp"]["endpoint"].split(":")
    assert (compose(host)["profiles"], port) == (["observability"], "4317")
    listens = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert f"SAGA_OTLP_ENDPOINT=http://collector:{listens}\n" in (DEPLOY / "observability.env").read_text()


def test_prometheus_scrapes_each_composed_services_port():
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
