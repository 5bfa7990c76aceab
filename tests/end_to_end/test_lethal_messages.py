"""A message that kills its process is dead-lettered, and none of the others in hand."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aio_pika
import pytest

from tests.conftest import PostgresDatabases
from tests.end_to_end.lethal import order
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings
from toolkit.persistence import dead_letter_queries, outbox, saga_log_queries, suspect_messages
from toolkit.persistence.database import Database
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: Six starts of a process, one after the other, on a machine that may be busy.
pytestmark = pytest.mark.timeout(400)

#: The deaths after which a message is dead-lettered: unmarked, marked among others, among a few, and twice alone.
_DEATHS = 5


class Processes:
    """Processes of the bakery, each restarted after its death."""

    def __init__(self, *command: str, **environment: str) -> None:
        self._command, self._environment = command, os.environ | environment
        self._tasks: list[asyncio.Task[None]] = []
        self.codes: list[int] = []

    @asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[None]:
        self._tasks = [asyncio.create_task(self._restart_forever()) for _ in range(count)]
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _restart_forever(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", *self._command, env=self._environment)
            try:
                self.codes.append(await process.wait())
            except asyncio.CancelledError:
                process.terminate()
                await process.wait()
                raise


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """The bakery's database, for the test's queries."""
    url = f"sqlite:///{tmp_path / 'bakery.db'}"
    if request.param == "postgresql":
        databases: PostgresDatabases = request.getfixturevalue("kept_databases")
        await databases.empty()
        url = await databases.url("bakery")
    database = Database(url)
    await database.create_tables()
    yield database
    await database.close()


@pytest.fixture
async def queue(rabbitmq: Server, prefix: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel; the test's queues and exchanges are deleted at its end."""
    connection = await aio_pika.connect(rabbitmq.url)
    async with connection, connection.channel() as channel:
        yield channel
        for name in (f"{prefix}.bakery", f"{prefix}.bakery.dead"):
            await channel.queue_delete(name)
        for name in (prefix, f"{prefix}.dead", f"{prefix}.bakery"):
            await channel.exchange_delete(name)


@pytest.mark.parametrize(("database", "replicas"), [("sqlite", 1), ("postgresql", 2)], indirect=["database"])
async def test_only_the_lethal_message_is_dead_lettered(
    rabbitmq: Server,
    prefix: str,
    tmp_path: Path,
    database: Database,
    queue: aio_pika.abc.AbstractChannel,
    replicas: int,
) -> None:
    processes = Processes(
        "toolkit.cli",
        "run",
        "tests.end_to_end.lethal:bakery",
        SAGA_BROKER_URL=rabbitmq.url,
        SAGA_EXCHANGE=prefix,
        SAGA_DATABASE_URL=database.url,
        SAGA_LOG_LEVEL="warning",
        SAGA_RELAY_LEASE="1",
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(processes.running(replicas))
        await eventually(lambda: is_bound(queue, prefix), within=100)
        async with RabbitPublisher(Settings(broker_url=rabbitmq.url, exchange=prefix)) as client:
            await asyncio.gather(*(client.publish(order(number, is_lethal=number == 13)) for number in range(30)))
        await eventually(lambda: is_over(database), within=250, every=0.5, what="29 ends, and one dead letter")

    # A replica that has not read the marks yet may take a new copy: one death more for each.
    assert _DEATHS <= processes.codes.count(-signal.SIGKILL) < _DEATHS + replicas
    await check_the_rest(database)
    dead = await queue.declare_queue(f"{prefix}.bakery.dead", passive=True)
    assert dead.declaration_result.message_count == 0


async def test_the_embedded_transport_dead_letters_it_too(tmp_path: Path) -> None:
    codes = []
    while not codes or codes[-1]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.end_to_end.lethal", str(tmp_path), env=os.environ | {"SAGA_RELAY_LEASE": "1"}
        )
        codes.append(await process.wait())
        assert len(codes) <= _DEATHS + 1

    assert codes == [-signal.SIGKILL] * _DEATHS + [0]
    database = Database(f"sqlite:///{tmp_path / 'bakery.db'}")
    await check_the_rest(database)
    await database.close()


async def check_the_rest(database: Database) -> None:
    """Check that one message was dead-lettered, and that all other sagas completed."""
    async with database.reading() as connection:
        (dead_letter,) = await dead_letter_queries.listed(connection)
        states = {each.saga_id: each.state for each in await saga_log_queries.sagas(connection, limit=100)}
        marked = await suspect_messages.marked_messages(connection, least=2)
        waiting = await outbox.count(connection)
    assert (dead_letter.reason, dead_letter.event_type, dead_letter.saga_id) == (
        "ended its process",
        "BreadBaked",
        "order-13",
    )
    assert states.pop("order-13") != "Completed"
    assert set(states.values()) == {"Completed"}
    assert len(states) == 29
    assert (len(marked), waiting) == (1, 0)


async def is_over(database: Database) -> bool:
    async with database.reading() as connection:
        ended = [each for each in await saga_log_queries.sagas(connection, limit=100) if each.state == "Completed"]
        count = await dead_letter_queries.count(connection)
        return len(ended) == 29 and count == 1 and not await outbox.count(connection)


async def is_bound(channel: aio_pika.abc.AbstractChannel, prefix: str) -> bool:
    connection = await aio_pika.connect(str(channel._connection.url))
    async with connection, connection.channel() as looking:
        try:
            return bool(
                (await looking.declare_queue(f"{prefix}.bakery", passive=True)).declaration_result.consumer_count
            )
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
