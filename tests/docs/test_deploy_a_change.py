"""The workflow of the page on changes is one that GitHub takes; it lets a good merge pass, and blocks a bad one."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.docs.commands import environment
from tests.docs.pages import DOCS, PROJECT, blocks, first_column, section
from toolkit.compatibility.differences import Kind

PAGE = DOCS / "how-to" / "deploy-a-change.md"
SCHEMA = PROJECT / "tests" / "schemas" / "github-workflows.json.gz"
SERVICES = ("inventory", "payment", "shipping", "notification")


def workflow() -> dict[str, Any]:
    """Return the page's workflow; YAML 1.1 reads `on` as true, and GitHub as a text."""
    (block,) = blocks("yaml", PAGE)
    content = yaml.safe_load(block.text)
    return {"on" if name is True else name: value for name, value in content.items()}


def commands() -> list[str]:
    """Return the scripts that run the toolkit."""
    steps = workflow()["jobs"]["compatible"]["steps"]
    return [step["run"] for step in steps if "saga " in step.get("run", "")]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the services and their contracts, and beside them what its main branch has."""
    shutil.copytree(PROJECT / "services", tmp_path / "services", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "contracts").mkdir()
    regenerate(tmp_path)
    shutil.copytree(tmp_path / "contracts", tmp_path / "base" / "contracts")
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def regenerate(repository: Path) -> None:
    for service in SERVICES:
        done = run(f"saga contract {service} > contracts/{service}.json", repository)
        assert done.returncode == 0, done.stderr


def run(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a step's script as a runner does."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = environment(PATH=path, PYTHONPATH=str(directory))
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script], cwd=directory, env=variables, capture_output=True, text=True
    )


def change(repository: Path, old: str, new: str) -> None:
    """Change the events, and commit the contracts with them."""
    events = repository / "services" / "events.py"
    assert old in events.read_text()
    events.write_text(events.read_text().replace(old, new, 1))
    regenerate(repository)
    subprocess.run(["git", "add", "-A"], cwd=repository, check=True)


def test_the_workflow_is_one_that_github_takes():
    validator = Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))

    assert [error.message for error in validator.iter_errors(workflow())] == []


def test_a_merge_that_changes_no_event_passes(repository):
    fresh, compatible = (run(each, repository) for each in commands())

    assert (fresh.returncode, compatible.returncode) == (0, 0), fresh.stdout + compatible.stdout
    assert compatible.stdout == ""


def test_a_merge_with_an_optional_field_passes(repository):
    change(repository, "    amount: Amount\n    shipping", '    amount: Amount\n    note: str = ""\n    shipping')

    assert [run(each, repository).returncode for each in commands()] == [0, 0]


def test_a_merge_with_a_required_field_is_blocked(repository):
    change(repository, "    amount: Amount\n    shipping", "    amount: Amount\n    currency: str\n    shipping")

    fresh, compatible = (run(each, repository) for each in commands())

    assert (fresh.returncode, compatible.returncode) == (0, 1)
    assert "::error file=contracts/shipping.json,line=" in compatible.stdout
    assert "a saga that waits in create_shipment (shipping) after PaymentProcessed can never end" in compatible.stdout


def test_a_merge_without_its_contracts_is_blocked(repository):
    change(repository, "    amount: Amount\n    shipping", '    amount: Amount\n    note: str = ""\n    shipping')
    shutil.copytree(repository / "base" / "contracts", repository / "contracts", dirs_exist_ok=True)
    subprocess.run(["git", "add", "-A"], cwd=repository, check=True)

    fresh, _ = (run(each, repository) for each in commands())

    assert fresh.returncode == 1


def test_each_rule_of_a_change_is_explained():
    code = "".join(path.read_text() for path in (PROJECT / "toolkit" / "compatibility").glob("*.py"))
    named = re.findall(r'_at\(\s*change,\s*"([a-z ]+)"|rule="([a-z ]+)"|= "(owner changed)"', code)
    rules = {each for found in named for each in found if each} | set(Kind) | {"version raised", "version lowered"}

    explained = [each for each in first_column(section(PAGE, "What is found")) if each not in ("finding", "note")]

    assert sorted(explained) == sorted(rules)
