"""Where a report's figures come from: the time, the machine, the packages and the servers."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import aiormq
import asyncpg

from tests.servers import Server

_PACKAGES = ("faststream", "aio-pika", "aiormq", "sqlalchemy", "sqlmodel", "asyncpg", "aiosqlite", "dbos")


def now() -> str:
    """Return the present moment."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def packages() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter for speed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def machine() -> dict[str, str]:
    """Return what the machine is."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB",
        "system": platform.platform(),
    }


async def servers(broker: Server, postgres: Server) -> dict[str, str]:
    """Return the servers' versions, and how they were found: services of this machine, or containers."""
    connection = await aiormq.connect(broker.url)
    rabbitmq = connection.server_properties.get("version")
    await connection.close()
    database = await asyncpg.connect(postgres.url)
    postgresql = await database.fetchval("SHOW server_version")
    durable = [await database.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
    await database.close()
    return {
        "RabbitMQ": f"{rabbitmq}, {_origin(broker)}; quorum queues",
        "PostgreSQL": f"{postgresql}, {_origin(postgres)}; fsync {durable[0]}, synchronous_commit {durable[1]}",
    }


def _origin(server: Server) -> str:
    return f"{server.found}: {server.url.rpartition('@')[2].partition('/')[0]}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
