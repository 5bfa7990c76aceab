"""The containers of a new project carry sagas over RabbitMQ and PostgreSQL, with the wheel in the image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.distribution.environments import Unpacked
from tests.eventually import eventually
from tests.servers import docker_is_there

#: The first build fetches every dependency.
pytestmark = pytest.mark.timeout(1200)


class Containers:
    """The project's containers, under names and ports of the test's own."""

    def __init__(self, project: Path) -> None:
        ports = re.findall(r"\$\{(\w+_PORT):-\d+\}", (project / "compose.yaml").read_text())
        self._project = project
        self._variables = os.environ | dict.fromkeys(ports, "0") | {"COMPOSE_PROJECT_NAME": project.name}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`."""
        return subprocess.run(
            ["docker", "compose", *arguments],
            cwd=self._project,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def saga(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in the containers' network."""
        return self.run("run", "--rm", "saga", *arguments)


@pytest.fixture
def containers(unpacked: Unpacked, wheel: Path) -> Iterator[Containers]:
    """A new project's containers, built with the wheel instead of a published release."""
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, so nothing can be run in containers")
    name = f"ticket-{uuid4().hex[:8]}"
    unpacked.saga("new", name).check_returncode()
    project = unpacked.cwd / name
    shutil.copy(wheel, project)
    replace(project / ".dockerignore", "*\n", f"*\n!{wheel.name}\n")
    replace(project / "Dockerfile", "RUN pip install .", f"COPY {wheel.name} /wheels/\nRUN pip install -f /wheels .")
    running = Containers(project)
    started = running.run("up", "-d", "--build")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield running
    finally:
        running.run("down", "-v", "--rmi", "local")
        subprocess.run(["docker", "image", "rm", "-f", name], capture_output=True, check=False)


def replace(path: Path, old: str, new: str) -> None:
    """Replace the one place of a text in a file."""
    before, after = path.read_text().split(old)
    path.write_text(f"{before}{new}{after}")


async def test_new_projects_containers_carry_sagas(containers: Containers):
    paid = containers.saga("trigger", "TicketWanted", "--set", "ticket_id=ticket-1", "--wait", "120")
    taken = containers.saga("trigger", "TicketWanted", "--set", "ticket_id=ticket-2", "--wait", "120")

    async def are_verified() -> bool:
        return "2 sagas verified, all is right" in containers.saga("verify").stderr

    assert (paid.returncode, taken.returncode) == (0, 1), paid.stderr + taken.stderr
    assert "ticket-2 failed: seat A1 is taken" in taken.stderr
    await eventually(are_verified, within=60, every=1, what="the sagas' rest")
