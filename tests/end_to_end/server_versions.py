"""The versions of the servers that a report names."""

from __future__ import annotations

import aiormq
import asyncpg


async def rabbitmq_version(url: str) -> str:
    """Return the version of the RabbitMQ at this URL."""
    connection = await aiormq.connect(url)
    number = connection.server_properties["version"]
    await connection.close()
    return number.decode() if isinstance(number, bytes) else str(number)


async def postgresql_version(url: str) -> str:
    """Return the version of the PostgreSQL at this URL."""
    connection = await asyncpg.connect(url)
    number = await connection.fetchval("SHOW server_version")
    await connection.close()
    return str(number).split()[0]
