"""In a fresh environment, the wheel with an extra has the features of that extra, and the others name theirs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.distribution.environments import Environment
from tests.distribution.test_extras import CHECKING, DECLARING, FEATURES, OPTIONAL
from tests.docs.commands import environment as variables
from tests.examples.demos import DEMOS
from toolkit.extras import EXTRAS

pytestmark = pytest.mark.timeout(900)  # pip installs as fast as the index and this machine allow

Install = Callable[[str], Environment]


@pytest.mark.parametrize("extra", ["", *EXTRAS, "all"])
def test_installed_extra_has_its_features_alone(extra: str, install: Install):
    environment = install(extra)
    installed = set().union(*EXTRAS.values()) if extra == "all" else set(EXTRAS.get(extra, ()))

    for name, (statement, feature) in FEATURES.items():
        done = environment.run("python", "-c", f"import sys; {statement}", OTEL_TRACES_EXPORTER="otlp")
        has_it = installed.issuperset(EXTRAS[name])
        assert (done.returncode == 0) is has_it, f"{name} with {extra or 'the base'}: {done.stderr}"
        if not has_it:
            assert f"{feature} needs" in done.stderr
            assert done.stderr.endswith(f"which is not installed: pip install 'saga-toolkit[{name}]'\n")


def test_base_declares_and_checks_without_optional_packages(install: Install):
    environment = install("")

    checked = environment.run("python", "-c", f"{DECLARING}\n{CHECKING}")
    optional = OPTIONAL - {"prometheus_client"}
    found = environment.run(
        "python", "-c", f"from importlib.util import find_spec; print(*filter(find_spec, {optional!r}))"
    )

    assert (checked.returncode, checked.stderr) == (0, "")
    assert found.stdout.split() == []


def test_demonstrations_run_from_the_installed_wheel(install: Install):
    environment = install("cli,sqlite")

    ran = [environment.saga("demo", *name) for name in ([], *([name] for name in DEMOS))]
    verified = environment.saga("verify", SAGA_DATA_DIR=".saga/demo", SAGA_BROKER_URL="embedded")

    assert [each.stdout + each.stderr for each in ran if each.returncode or each.stderr] == []
    assert (verified.returncode, verified.stderr) == (0, "8 sagas verified, all is right\n")


def test_new_project_passes_its_readme_and_its_ci(install: Install, wheel: Path, tmp_path: Path):
    environment = install("cli")
    environment.saga("new", "ticket-shop").check_returncode()
    project = tmp_path / "ticket-shop"
    set_up, containers, embedded, _ = re.findall(
        r"^```sh\n(.*?)^```$", (project / "README.md").read_text(), re.M | re.S
    )
    workflow = yaml.safe_load((project / ".github" / "workflows" / "ci.yaml").read_text())
    of_ci = [each["run"] for each in workflow["jobs"]["test"]["steps"] if "run" in each]
    index = variables(
        PATH=f"{project}/.venv/bin:{os.environ['PATH']}",
        PIP_CONSTRAINT=str(tmp_path / "constraints.txt"),
        PIP_FIND_LINKS=f"{wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}",
    )

    for script in (set_up, *of_ci, embedded.replace("  # ends with 1", " || test $? = 1")):
        done = subprocess.run(
            ["sh", "-ec", script], cwd=project, env=index, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    assert containers == "docker compose up -d --build\n"
