"""The services under chaos: two replicas of each, servers of their own, and a proxy between all of them.

The outside systems have databases of their own, without faults: they stand for other companies. If they failed, too, an
order's correct end would depend on chance.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import text

from services.accounts import paid_as_ended, reserved_as_ended
from services.events import order_saga
from tests.chaos.client import Client
from tests.chaos.mix import SAGAS
from tests.chaos.shop.dares import dare_saga
from tests.chaos.shop.hosted import CHECKS, OUTSIDE, step_timeouts
from tests.conftest import PostgresDatabases
from tests.end_to_end.breakable import Breakable, OwnServer, breakable, own_server
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.placed_orders import SERVICES
from tests.end_to_end.proxy import Proxy
from tests.end_to_end.replica import Replica
from tests.eventually import eventually
from tests.servers import POSTGRESQL, RABBITMQ
from toolkit import Settings
from toolkit.ids import new_id
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: The warnings of thousands of processes are not used.
_QUIET = {"SAGA_LOG_LEVEL": "error", "SAGA_LOG_FORMAT": "json"}


#: The service with two releases that may run together, and their references for `saga run`.
RELEASED, RELEASES = "shipping", ("tests.chaos.shop.apps:shipping", "tests.chaos.shop.releases:shipping_before")
#: The first service that receives poison.
DARED = "inventory"
_NO_LONGER_CONSUMED = "no longer consumed"
#: The services' login at their databases, and its password.
LOGIN = "chaos_services"


@dataclass(frozen=True, slots=True)
class Servers:
    """The broker, the services' database, and that of the outside systems."""

    broker: OwnServer
    database: OwnServer
    outside: OwnServer


@contextmanager
def servers() -> Iterator[Servers]:
    """Start the servers, each on a port of its own."""
    with ExitStack() as stack:
        yield Servers(*(stack.enter_context(own_server(kind)) for kind in (RABBITMQ, POSTGRESQL, POSTGRESQL)))


@dataclass(slots=True, kw_only=True)
class World(Client):
    """The fleet, its servers, and the checks of all that was sent."""

    fleet: Fleet
    broker: Breakable
    database: Breakable
    #: The proxy between each service and the broker.
    ways: dict[str, Proxy]
    #: The file of all services' logs.
    log: Path
    #: The dead letters that were found, by message id, each with its service and reason.
    dead_letters: dict[str, str] = field(default_factory=dict)
    #: How many dead letters were events for a former release.
    outdated: int = 0
    #: The exit codes of processes that ended by themselves.
    fallen: Counter[int | None] = field(default_factory=Counter)

    async def take(self, name: str) -> Replica:
        """Take a running process of a service, as soon as one is not taken by another fault."""

        async def one() -> Replica | None:
            return self.fleet.oldest(name) if self.fleet.running(name) else None

        taken = await eventually(one, within=120, what=f"a running process of {name}")
        assert taken is not None
        return taken

    async def keep_running(self) -> None:
        """Restart processes that ended by themselves, as an orchestrator does, until cancelled."""
        while True:
            for replica in [each for each in self.fleet.replicas if each.process.returncode is not None]:
                self.fleet.replicas.remove(replica)
                self.fallen[replica.process.returncode] += 1
                await self.fleet.launch(replica.name)
            await asyncio.sleep(0.2)  # a fast orchestrator's interval

    async def ends(self) -> dict[tuple[str, str], tuple[str, float]]:
        """Return each saga's end and its time, by type and id, from the log of the service that ended it."""
        query = f"SELECT saga_type, saga_id, saga_state, at FROM saga_log WHERE emitted_type IN ({_ENDS})"
        rows = [row for name in self.fleet.databases for row in await self.rows(name, query)]
        return {(row["saga_type"], row["saga_id"]): (row["saga_state"], row["at"].timestamp()) for row in rows}

    async def count_ended(self) -> int:
        """Return how many sagas have ended."""
        query = f"SELECT count(*) AS ended FROM saga_log WHERE emitted_type IN ({_ENDS})"
        return sum([int((await self.rows(name, query))[0]["ended"]) for name in self.fleet.databases])

    async def rows(self, name: str, query: str) -> list[dict[str, Any]]:
        """Query a service's database, past all proxies."""

        async def query_rows(connection: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in (await connection.execute(text(query))).mappings()]

        return await self.fleet.look(name, query_rows)

    def errors(self) -> Counter[str]:
        """Return how often the services logged each error."""
        lines = self.log.read_text(errors="replace").replace(f"{Path.cwd()}/", "").splitlines()
        return Counter(json.loads(line)["event"] if line.startswith("{") else line[:80] for line in lines)

    async def converged(self, *, within: float) -> list[str]:
        """Wait until `saga verify` finds nothing, and return what it finds after `within` seconds."""
        found: list[str] = []

        async def is_right() -> bool:
            nonlocal found
            found = await self._strays() or [] if await self.fleet.is_at_rest() else ["rows wait in an outbox"]
            found += self._unended(await self.ends())
            found = found or await self.fleet.violations()
            return not found

        try:
            await eventually(is_right, within=within, every=1.0, what="a correct end")
        except AssertionError:
            return found
        return []

    def _unended(self, ends: Collection[tuple[str, str]]) -> list[str]:
        """Return the sagas without an end, and the poison that is no dead letter yet."""
        killed = {("dare", each.dare_id) for id_, each in self.poison.items() if id_ in self.dead_letters}
        sagas = [f"{kind} {saga_id} has not ended" for kind, saga_id in self.due.keys() - killed - set(ends)]
        undead = [
            f"{each.message.type} {id_} is no dead letter: {each.message.body[:60]!r}"
            for id_, each in self.poison.items()
            if each.dare_id is None and id_ not in self.dead_letters
        ]
        return [*sagas, *undead]

    async def _strays(self) -> list[str]:
        """Return the dead letters that are not poison; note the others, and drop them as an operator does."""
        strays = []
        for name in self.fleet.databases:
            for row in await self.rows(name, "SELECT id, message_id, event_type, reason, error FROM saga_dead_letters"):
                sent = self.poison.get(row["message_id"])
                if row["reason"] == _NO_LONGER_CONSUMED:
                    self.outdated += 1
                    await self._drop(name, row["id"])
                elif sent is None or not sent.may_be_dead_letter:
                    strays.append(f"{name} dead-lettered {row['event_type']}: {row['reason']}: {row['error'][:200]}")
                else:
                    self.dead_letters[row["message_id"]] = f"{name}: {row['reason']}"
                    await self._drop(name, row["id"])
        return strays

    async def _drop(self, name: str, dead_letter_id: str) -> None:
        async with self.fleet.databases[name].engine.begin() as connection:
            await connection.execute(text("DELETE FROM saga_dead_letters WHERE id = :id"), {"id": dead_letter_id})


#: The events that end a saga of any type.
_ENDS = ", ".join(
    f"'{event.__name__}'"
    for saga in (order_saga, dare_saga, *SAGAS)
    for event in (saga.completes_with, saga.fails_with)
)


@asynccontextmanager
async def world(
    servers: Servers,
    *,
    services: tuple[str, ...] = SERVICES,
    replicas: int = 2,
    own_ways: bool = False,
    environment: Mapping[str, str] | None = None,
    references: Mapping[str, str] | None = None,
) -> AsyncIterator[World]:
    """Start the services behind their proxies, and remove their databases, queues and exchanges afterwards.

    `references` names releases other than those of `tests.chaos.shop.apps`.
    """
    async with AsyncExitStack() as stack:
        data_dir = Path(stack.enter_context(TemporaryDirectory(prefix="saga-chaos-")))
        databases, outside = PostgresDatabases(servers.database.url), PostgresDatabases(servers.outside.url)
        stack.push_async_callback(databases.drop)
        stack.push_async_callback(outside.drop)
        for variable in OUTSIDE:
            stack.enter_context(_environment(variable, await outside.url(variable.lower())))
        broker = await stack.enter_async_context(breakable(servers.broker))
        database = await stack.enter_async_context(breakable(servers.database))
        own = [await stack.enter_async_context(Proxy(servers.broker.url)) for _ in services if own_ways]
        ways = dict(zip(services, own or [broker.proxy] * len(services), strict=True))
        settings = Settings(broker_url=broker.url, exchange=f"chaos-{new_id()[-12:]}", data_dir=data_dir)
        urls = {name: await _owned_by_login(await databases.url(name)) for name in services}
        log = data_dir / "services.log"
        fleet = Fleet(
            settings,
            urls,
            through=lambda name, url: ways[name].through(database.proxy.through(_as_service(url))),
            environment=step_timeouts() | _QUIET | dict(environment or {}),
            log=stack.enter_context(log.open("ab")),
            references={name: f"tests.chaos.shop.apps:{name}" for name in services} | dict(references or {}),
            checks=[reserved_as_ended, partial(paid_as_ended, settings=settings), *CHECKS],
        )
        stack.push_async_callback(fleet.stop)
        for proxy in (database.proxy, broker.proxy, *ways.values()):
            stack.callback(proxy.heal)
        await fleet.start(*services * replicas)
        publisher = await stack.enter_async_context(RabbitPublisher(settings))
        yield World(fleet=fleet, broker=broker, database=database, ways=ways, publisher=publisher, log=log)


async def _owned_by_login(url: str) -> str:
    """Make a login without superuser rights the owner of a database: its rights can be revoked; return the URL."""
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", LOGIN):
            await connection.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{LOGIN}'")
        await connection.execute(f'ALTER DATABASE "{urlsplit(url).path[1:]}" OWNER TO {LOGIN}')
    finally:
        await connection.close()
    return url


def _as_service(url: str) -> str:
    """Return a database's URL with the services' login; other URLs unchanged."""
    parts = urlsplit(url)
    if parts.scheme != "postgresql":
        return url
    return urlunsplit(parts._replace(netloc=f"{LOGIN}:{LOGIN}@{parts.netloc.rpartition('@')[2]}"))


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for this process and those that it starts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
