"""The hooks of pre-commit pass and need nothing from elsewhere; the workflow runs what a checkout has to pass."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.commands import is_target
from tests.docs.pages import PROJECT

WORKFLOW = PROJECT / ".github" / "workflows" / "ci.yml"


def hooks() -> list[dict[str, Any]]:
    (repository,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    return list(repository["hooks"])


def commands() -> list[str]:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@pytest.mark.timeout(600)
def test_every_hook_passes_on_all_files(tmp_path: Path):
    run = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--color=never"]
    variables = os.environ | {"PRE_COMMIT_HOME": str(tmp_path)}

    done = subprocess.run(run, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(.+?)\.+(\w+)$", done.stdout, re.MULTILINE) == [(each["name"], "Passed") for each in hooks()]
    assert not list(tmp_path.glob("repo*")), "a hook was downloaded"


def test_hooks_run_what_make_check_runs():
    recipe = (PROJECT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    checked = {line.strip().removeprefix("$(BIN)/").split()[0] for line in recipe.splitlines()[1:]}

    assert checked <= {shlex.split(each["entry"])[0].removeprefix(".venv/bin/") for each in hooks()}


def test_workflow_runs_the_makefiles_targets():
    targets = [command.removeprefix("make ") for command in commands() if command.startswith("make ")]

    assert sorted(targets) == ["check", "docs", "test"]
    assert all(map(is_target, targets))
    others = [command for command in commands() if not command.startswith("make ")]
    assert [command for command in others if not (PROJECT / command.removeprefix("sudo ")).is_file()] == []


def test_workflow_tests_the_oldest_supported_python():
    oldest = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")

    versions = re.findall(r"3\.\d+", WORKFLOW.read_text())

    assert min(versions, key=lambda each: tuple(map(int, each.split(".")))) == oldest
