"""The processes of an example whose services run in an application: the application, and `saga run`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
from sqlalchemy import make_url

from tests.docs.commands import environment
from tests.docs.pages import PROJECT
from toolkit import Settings

#: SQLAlchemy's drivers, by database.
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def sqlalchemy_url(url: str) -> str:
    """Return a database's URL as an application gives it to SQLAlchemy."""
    named = make_url(url)
    return named.set(drivername=_DRIVERS[named.get_backend_name()]).render_as_string(hide_password=False)


@asynccontextmanager
async def processes(settings: Settings, *commands: tuple[str, ...], **variables: str) -> AsyncIterator[None]:
    """Run these modules of Python, with their arguments, until the end of the block; they stop by SIGTERM."""
    shared = environment(
        SAGA_BROKER_URL=settings.broker_url, SAGA_EXCHANGE=settings.exchange, SAGA_DATA_DIR=str(settings.data_dir),
        **variables,
    )  # fmt: skip
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", *command, cwd=PROJECT, env=shared)
        for command in commands
    ]
    try:
        yield
    finally:
        codes = await asyncio.gather(*(terminated(each) for each in running))
    assert [code for code in codes if code not in (0, -15)] == [], codes


async def terminated(process: asyncio.subprocess.Process) -> int:
    """Stop a process, and return its exit code; one that does not stop is killed."""
    with suppress(ProcessLookupError):  # it has ended before
        process.terminate()
    try:
        return await asyncio.wait_for(process.wait(), 60)
    except TimeoutError:
        process.kill()
        return await process.wait()


async def sweep(settings: Settings, *services: str, queues: tuple[str, ...] = ()) -> None:
    """Delete what the services, and the application, have declared on the broker."""
    names = [f"{settings.exchange}.{service}" for service in services]
    async with await aio_pika.connect(settings.broker_url) as connection, connection.channel() as channel:
        for queue in (*names, *(f"{name}.dead" for name in names), *queues):
            await channel.queue_delete(queue)
        for exchange in (*names, settings.exchange, f"{settings.exchange}.dead"):
            await channel.exchange_delete(exchange)
