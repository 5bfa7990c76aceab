"""The order shop in containers: a Compose project with its own names and ports."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

_ROOT = Path(__file__).parents[2]


class Shop:
    """The containers of compose.yaml; started on entering, and removed with their data on leaving."""

    def __init__(self) -> None:
        self._name = f"saga-test-{uuid4().hex[:8]}"
        ports = ("AMQP", "MANAGEMENT", "POSTGRES", "INVENTORY", "PAYMENT", "SHIPPING", "NOTIFICATION", "CONSOLE")
        self._environment = os.environ | {
            "COMPOSE_PROJECT_NAME": self._name,
            "COMPOSE_FILE": "compose.yaml",
            "SAGA_IMAGE": self._name,
            **{f"SAGA_{port}_PORT": "0" for port in ports},  # the engine chooses free ones
        }

    def __enter__(self) -> Self:
        try:
            self.compose("up", "-d", "--build")
        except AssertionError:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def compose(self, *arguments: str) -> str:
        """Run `docker compose …` and return what it printed; it has to succeed."""
        done = self._run("compose", *arguments)
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {_end_of(done)}\n{self._logs()}"
        return done.stdout

    def saga(self, *arguments: str, variables: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run `docker compose run --rm saga …`, with variables `NAME=value` if there are any."""
        options = [part for variable in variables for part in ("-e", variable)]
        return self._run("compose", "run", "--rm", *options, "saga", *arguments)

    def trigger(self, *arguments: str, code: int = 0) -> str:
        """Place an order, wait for its end, and return its id."""
        done = self.saga("trigger", "OrderCreated", *arguments, "--wait", "60")
        assert done.returncode == code, f"{_end_of(done)}\n{self._logs()}"
        return done.stdout.strip()

    def log(self, service: str, order: str) -> list[tuple[str, str, str | None]]:
        """Return this order's entries in a service's log: the step, its new state, and the event that it emitted."""
        done = self.saga("log", service, "-o", "json")
        assert done.returncode == 0, _end_of(done)
        entries = [entry for entry in json.loads(done.stdout) if entry["saga_id"] == order]
        return [(entry["step"], entry["to_state"], entry["emitted_type"]) for entry in entries]

    def address(self, service: str) -> str:
        """Return the service's address on this machine."""
        return self.compose("port", service, "8000").strip()

    def get(self, service: str, path: str) -> dict[str, Any]:
        """Query a service's API, with the demonstration's token; return an empty dict without a response."""
        headers = {"Authorization": "Bearer demo-token-everybody-knows"}
        try:
            url = f"http://{self.address(service)}{path}"
            return dict(httpx.get(url, headers=headers, timeout=5, trust_env=False).json())
        except httpx.HTTPError:
            return {}

    def state_of(self, service: str) -> dict[str, Any]:
        """Return the engine's state of the service's container."""
        container = self.compose("ps", "-a", "-q", service).strip()
        return dict(json.loads(self._run("inspect", container).stdout)[0])

    def states(self) -> dict[str, dict[str, Any]]:
        """Return the engine's states of all running containers, by service."""
        found = json.loads(self._run("inspect", *self.compose("ps", "-q").split()).stdout)
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def execute(self, state: dict[str, Any], script: str) -> str:
        """Run a shell script in a container and return what it printed; it has to succeed."""
        done = self._run("exec", state["Id"], "sh", "-c", script)
        assert done.returncode == 0, _end_of(done)
        return done.stdout

    def is_healthy(self, service: str) -> bool:
        """Whether the engine reports all the service's containers as healthy."""
        containers = self.compose("ps", "-q", service).split()
        found = json.loads(self._run("inspect", *containers).stdout)
        return all(each["State"]["Health"]["Status"] == "healthy" for each in found)

    def _remove(self) -> None:
        self._run("compose", "down", "-v", "--rmi", "local")
        self._run("image", "rm", "-f", self._name)

    def _logs(self) -> str:
        return self._run("compose", "logs", "--no-color", "--tail", "15").stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *arguments],
            cwd=_ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    return f"it ended with {done.returncode}: {done.stderr[-3000:]}"
