"""The page from the demo to production, from its first command to its last, on a real Docker engine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.docs.commands import commands
from tests.docs.pages import DOCS, PROJECT, README, blocks, first_column, section
from tests.servers import docker_is_there

PAGE = DOCS / "how-to" / "harden.md"
#: The files of the image, and of its containers.
PARTS = (
    *("compose.yaml", "Dockerfile", ".dockerignore", "pyproject.toml", "hatch_build.py"),
    *("requirements.lock", "README.md", "LICENSE"),
)
IMAGES = {
    "SAGA_PYTHON_IMAGE": "python:3.13-slim",
    "SAGA_RABBITMQ_IMAGE": "rabbitmq:4-management",
    "SAGA_POSTGRES_IMAGE": "postgres:17",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh checkout, since the page creates files in it."""
    for name in PARTS:
        shutil.copy(PROJECT / name, tmp_path)
    for name in ("toolkit", "services", "deploy"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def variables(checkout: Path) -> Iterator[dict[str, str]]:
    """An environment with free ports and unused container names; the containers are removed at the end."""
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, so nothing can be run in containers")
    name = f"saga-harden-{uuid4().hex[:8]}"
    kept = {each: value for each, value in os.environ.items() if not each.startswith("SAGA_")}
    ports = dict.fromkeys(first_column(section(README, "Containers")), "0")
    here = kept | ports | contents() | {"COMPOSE_PROJECT_NAME": name, "SAGA_IMAGE": name}
    yield here
    run("docker compose down -v --rmi local", checkout, here)
    run(f"docker image rm -f {name}", checkout, here)


def contents() -> dict[str, str]:
    """Return the ids of the images on this machine, since no registry may be reachable for their digests."""
    found = {}
    for variable, tag in IMAGES.items():
        inspected = subprocess.run(["docker", "image", "inspect", "-f", "{{.Id}}", tag], capture_output=True, text=True)
        found |= {variable: inspected.stdout.strip()} if inspected.returncode == 0 else {}
    return found


def run(command: str, directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(600)
def test_page_commands_harden_an_installation(checkout: Path, variables: dict[str, str]):
    for block in blocks("sh", PAGE):
        for command, code in commands(block):
            done = run(command, checkout, variables)
            logs = run("docker compose logs --tail 15", checkout, variables).stdout if done.returncode != code else ""
            assert done.returncode == code, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}\n{logs}"

    assert (checkout / "secrets").stat().st_mode & 0o777 == 0o700
    assert pins_in(checkout / ".env") == pins_in(PROJECT / "deploy" / "images.env")


def pins_in(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if "_IMAGE=" in line]


def test_secrets_in_use_are_not_overwritten(tmp_path: Path):
    (tmp_path / "secrets").mkdir()

    done = run(f"{PROJECT}/deploy/make-secrets secrets", tmp_path, dict(os.environ))

    assert done.returncode == 1
    assert "secrets exists already" in done.stderr
    assert list((tmp_path / "secrets").iterdir()) == []


def test_no_service_holds_anothers_secrets():
    services = yaml.safe_load((PROJECT / "deploy" / "production.yaml").read_text())["services"]
    names = ("inventory", "payment", "shipping", "notification")

    held = {name: set(services[name]["secrets"]) for name in services}

    common = {"ca.crt", "api-token-digest", "api-read-token-digest"}
    for name in names:
        own = {f"{name}-broker-url", f"{name}-database-url"} | (
            {"gateway-database-url"} if name == "payment" else set()
        )
        assert held[name] == common | own
    assert {name for name in held if "api-token" in held[name]} == {"console", "saga"}


def test_the_digests_match_the_tokens(tmp_path: Path):
    done = run(f"{PROJECT}/deploy/make-secrets secrets", tmp_path, dict(os.environ))

    assert done.returncode == 0, done.stderr
    for name in ("api-token", "api-read-token"):
        token, digest = ((tmp_path / "secrets" / each).read_bytes() for each in (name, f"{name}-digest"))
        assert digest.decode() == f"sha256:{hashlib.sha256(token).hexdigest()}"
