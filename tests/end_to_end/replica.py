"""One process of a service."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(eq=False, slots=True)
class Replica:
    """One process of a service."""

    name: str
    port: int
    process: asyncio.subprocess.Process

    async def readiness(self) -> dict[str, bool]:
        """Return the parts of `/readyz`; empty without a response."""
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return dict((await client.get(f"http://127.0.0.1:{self.port}/readyz", timeout=4)).json())
        except httpx.TransportError:
            return {}

    async def is_alive(self) -> bool:
        """Whether it answers."""
        return bool(await self.readiness())

    async def is_ready(self) -> bool:
        """Whether all its parts are ready."""
        parts = await self.readiness()
        return bool(parts) and all(parts.values())

    def megabytes(self) -> float:
        """Return its peak memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    async def kill(self) -> None:
        """Kill it, as a power cut does."""
        with suppress(ProcessLookupError):  # it may have ended meanwhile
            self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int | None:
        """Stop it, and return its exit code; after ten seconds it is killed."""
        with suppress(ProcessLookupError):  # it may have ended meanwhile
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            await self.kill()
        return self.process.returncode
