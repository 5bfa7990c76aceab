"""`saga new` makes a project whose checks and tests pass at once."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.distribution.environments import Unpacked
from tests.servers import docker_is_there
from toolkit.cli.service_discovery import DEFAULT_PACKAGE

NAME = "ticket-shop"


@pytest.fixture
def project(unpacked: Unpacked) -> Unpacked:
    """A project that the wheel has made, and its directory to work in."""
    made = unpacked.saga("new", NAME)
    assert (made.returncode, made.stderr) == (0, f"next: cd {NAME}, and run the two commands of its README.md\n")
    assert {unpacked.cwd / line for line in made.stdout.splitlines()} == files(unpacked.cwd)
    return Unpacked(unpacked.files, unpacked.cwd / NAME)


def files(directory: Path) -> set[Path]:
    """Return the files in a directory."""
    return {path for path in directory.rglob("*") if path.is_file()}


def test_project_is_sound_and_its_tests_pass(project: Unpacked):
    checked = project.saga("check")
    tested = project.python("-m", "pytest", "-q")

    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("✓ saga ticket: no interleaving breaks it")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "4 passed" in tested.stdout


def test_project_runs_in_one_process(project: Unpacked):
    started = project.saga("trigger", "TicketWanted", "--wait", "30", SAGA_BROKER_URL="embedded")
    refused = project.saga("trigger", "TicketWanted", "--wait", "30", SAGA_BROKER_URL="embedded")

    assert (started.returncode, refused.returncode) == (0, 1)
    assert refused.stderr.endswith("failed: seat A1 is taken\n")


def test_project_is_typed_and_formatted(project: Unpacked):
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length=120", "."]
    style = [
        subprocess.run([*ruff, *verb, *options], cwd=project.cwd, capture_output=True, text=True, check=False)
        for verb in (["check", "--select=B,E,F,I,RUF,SIM,UP"], ["format", "--check"])
    ]
    typed = project.python("-m", "mypy")

    assert [each.stdout for each in style if each.returncode] == []
    assert typed.returncode == 0, typed.stdout


def test_containers_run_the_services_of_the_project(project: Unpacked):
    compose = yaml.safe_load((project.cwd / "compose.yaml").read_text())["services"]
    made = (project.cwd / "deploy" / "databases.sql").read_text()

    run = {name: each["command"][1] for name, each in compose.items() if each.get("command", [""])[0] == "run"}
    databases = {each["environment"]["SAGA_DATABASE_URL"] for name, each in compose.items() if name in run}

    packages = {path.parent.name for path in (project.cwd / DEFAULT_PACKAGE).glob("*/app.py")}
    assert set(run.values()) == packages
    assert databases == {f"postgresql://saga:saga@postgres:5432/{name}?sslmode=disable" for name in packages}
    assert all(f"CREATE DATABASE {name};" in made for name in packages)
    addresses = ",".join(f"{service}=http://{name}:8000" for name, service in run.items())
    assert compose["saga"]["environment"]["SAGA_SERVICES"] == addresses


def test_compose_accepts_the_project(project: Unpacked):
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine")

    done = subprocess.run(
        shlex.split("docker compose config --quiet"), cwd=project.cwd, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_names_and_commands_of_the_project_fit(project: Unpacked):
    texts = {path.name: path.read_text() for path in files(project.cwd) if path.suffix != ".pyc"}
    workflow = yaml.safe_load(texts["ci.yaml"])

    steps = [each["run"] for each in workflow["jobs"]["test"]["steps"] if "run" in each]

    assert steps == ["python -m pip install -e '.[test]'", "python -m mypy", "saga check", "python -m pytest"]
    assert [name for name, text in texts.items() if "{{" in text] == []
    assert f'name = "{NAME}"' in texts["pyproject.toml"]


@pytest.mark.parametrize("name", ["Ticket", "ticket_shop", "-ticket", "../ticket", "", "saga-toolkit", "t" * 61])
def test_name_of_no_project_is_refused(unpacked: Unpacked, name: str):
    refused = unpacked.saga("new", "--", name)

    assert refused.returncode == 2
    assert "can't be the name of a project: give up to 60 lower-case letters" in refused.stderr
    assert files(unpacked.cwd) == set()


def test_existing_directory_is_left_alone(unpacked: Unpacked):
    (unpacked.cwd / NAME).mkdir()

    refused = unpacked.saga("new", NAME)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"error: {NAME} exists already: give another name, or remove it first\n"
    assert files(unpacked.cwd) == set()


def test_dry_run_lists_files_and_writes_none(unpacked: Unpacked):
    listed = unpacked.saga("new", NAME, "--dry-run")

    assert f"{NAME}/services/events.py" in listed.stdout.splitlines()
    assert files(unpacked.cwd) == set()
