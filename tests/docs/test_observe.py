"""The tables of metrics and alerts in the page on observing match a service's metrics and the alert rules."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from services.payment.app import app as service
from tests.docs.pages import DOCS, PROJECT, rows, section
from toolkit.observability import metrics
from toolkit.persistence import unreadable_rows
from toolkit.persistence.database import Database

PAGE = DOCS / "how-to" / "observe.md"
#: The suffix that prometheus_client adds to a counter and a histogram.
OF_THE_LIBRARY = ("_created",)


async def test_metrics_table_matches_a_services_page(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'payment.db'}")
    await database.create_tables()
    metrics.Meter(service)

    async def readiness() -> dict[str, bool]:
        return {"broker": True}

    page = (await metrics.page(service, database, readiness)).decode()
    await database.close()

    served = {
        (f"{family.name}_total" if family.type == "counter" else family.name): family.type
        for family in text_string_to_metric_families(page)
        if family.name.startswith("saga_") and not family.name.endswith(OF_THE_LIBRARY)
    }
    named = {cells[0].strip("`"): cells[1] for cells in rows(section(PAGE, "Metrics"))}
    assert named == served


def test_labels_in_the_table_are_declared():
    labels = {
        metric._name: set(metric._labelnames) - {"service"}
        for module in (metrics, unreadable_rows)
        for metric in vars(module).values()
        if isinstance(metric, metrics.Counter | metrics.Histogram)
    }

    named = {
        cells[0].strip("`").removesuffix("_total"): set(re.findall(r"`(\w+)`", cells[2]))
        for cells in rows(section(PAGE, "Metrics"))
        if cells[1] != "gauge"
    }

    assert named == labels


def test_alerts_table_links_each_runbook():
    groups = yaml.safe_load((PROJECT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    led_to = {rule["alert"]: Path(rule["annotations"]["runbook_url"]).name for each in groups for rule in each["rules"]}

    named = {
        alert: Path(re.search(r"\(([^)]+)\)", page)[1]).name
        for alerts, page in rows(section(PAGE, "Alerts"))
        for alert in re.findall(r"`(\w+)`", alerts)
    }

    assert named == led_to
