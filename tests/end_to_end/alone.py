"""One service, started by `saga run` under `ulimit -n 1024`, and its ports."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.cli.conftest import command
from tests.eventually import eventually


@dataclass(frozen=True)
class Running:
    """A service's process, and the ports of its API and of its health checks."""

    pid: int
    api: int
    health: int

    def megabytes(self) -> float:
        """Return its peak memory."""
        (line,) = [line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmHWM" in line]
        return int(line.split()[1]) / 1024


@asynccontextmanager
async def running(name: str, broker_url: str, folder: Path, **environment: str) -> AsyncIterator[Running]:
    """Run a service with this environment, with its database and its log in the folder, and wait until it is ready."""
    own = {
        "SAGA_BROKER_URL": broker_url,
        "SAGA_EXCHANGE": f"test-{folder.name}-{os.getpid()}",
        "SAGA_DATA_DIR": str(folder),
        "SAGA_HTTP_PORT": "0",
        "SAGA_LOG_FORMAT": "json",
    }
    with (folder / "log").open("wb") as log:
        limited = ("sh", "-c", 'ulimit -n 1024; exec "$@"', "sh", *command("run", name))
        process = await asyncio.create_subprocess_exec(*limited, env=os.environ | own | environment, stderr=log)
    try:
        api, health = await eventually(lambda: _listening(folder / "log"), within=90, what=name)
        yield Running(process.pid, api, health)
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 15) == 0


async def is_ready(port: int) -> bool:
    """Whether the service answers within two seconds that it is alive and ready."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=2) as client:
        try:
            answers = [await client.get(path) for path in ("/healthz", "/readyz")]
        except httpx.TransportError:
            return False
    return [each.status_code for each in answers] == [200, 200]


async def _listening(log: Path) -> tuple[int, int] | None:
    """Return the service's ports, once it is ready."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    found = {each["event"]: each["port"] for each in lines if "port" in each}
    if len(found) < 2 or not await is_ready(found["health listens"]):
        return None
    return found["api listens"], found["health listens"]
