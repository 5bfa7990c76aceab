"""The rules and dashboards of deploy/, and their queries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]


DEPLOY = PROJECT / "deploy"


RUNBOOKS = PROJECT / "docs/how-to/runbooks"


DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))


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
    """Yield each query of the rules and of the dashboards, with each variable matching everything."""
    yield from (rule["expr"] for rule in rules())
    for path in DASHBOARDS:
        for panel in dashboard(path)["panels"]:
            yield from (re.sub(r"\$\w+", ".*", target["expr"]) for target in panel["targets"])


def names_in(expression: str) -> set[str]:
    """Return the metrics that a query names."""
    return set(re.findall(r"\b(?:saga|process|python|faststream)_[a-z_]+", re.sub(r"by \([^)]*\)", "", expression))) - {
        "saga_type"
    }


def promtool(*words: str, page: bytes | None = None) -> str:
    """Run promtool, which has to succeed, and return its output; `page` is what it reads on standard input."""
    done = subprocess.run(["promtool", *words], input=page, capture_output=True)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
