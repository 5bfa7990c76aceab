"""The world that chaos befalls: two replicas of each service, servers of its own, and a proxy between all of them.

The payment provider's ledger lies in a database of its own, which is left alone: it stands for somebody else's
company. If it failed with ours, an order's outcome would be a matter of luck, and nobody could say what is due.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import text

from services.events import OrderCreated, order_saga
from tests.chaos.poison import Poison
from tests.chaos.shop.dares import dare_saga
from tests.chaos.shop.gifts import GiftOrdered, gift_saga
from tests.conftest import PostgresDatabases
from tests.end_to_end.breakable import Breakable, OwnServer, breakable, own_server
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.placed_orders import PATIENT, SERVICES, is_bound_to_fail
from tests.end_to_end.proxy import Proxy
from tests.end_to_end.replica import Replica
from tests.eventually import eventually
from tests.servers import POSTGRESQL, RABBITMQ
from toolkit import Settings
from toolkit.declaration.events import routing_key
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: Thousands of processes' warnings are of no use to anybody.
_QUIET = {"SAGA_LOG_LEVEL": "error", "SAGA_LOG_FORMAT": "json"}


#: The service that has two releases which may be at work together, and how `saga run` names them.
RELEASED, RELEASES = "shipping", ("tests.chaos.shop.apps:shipping", "tests.chaos.shop.releases:shipping_before")
#: The service that poison comes to first.
DARED = "inventory"
_NO_LONGER_CONSUMED = "no longer consumed"
#: The services' login at their databases, and its password.
LOGIN = "chaos_services"


@dataclass(frozen=True, slots=True)
class Servers:
    """The broker, the services' database, and the provider's."""

    broker: OwnServer
    database: OwnServer
    provider: OwnServer


@contextmanager
def servers() -> Iterator[Servers]:
    """Start the servers, each on a port of its own."""
    with ExitStack() as stack:
        yield Servers(*(stack.enter_context(own_server(kind)) for kind in (RABBITMQ, POSTGRESQL, POSTGRESQL)))


@dataclass(slots=True)
class World:
    """The fleet, what can be done to it, and what has to come of all that was sent.

    `due` holds, by saga type and id, the ends that a saga may have; `poison`, by message id, what may become of it.
    """

    fleet: Fleet
    broker: Breakable
    database: Breakable
    #: The way from each service to the broker, where each has one of its own.
    ways: dict[str, Proxy]
    #: The clients' way to the broker, past all proxies.
    publisher: RabbitPublisher
    #: What the services log, all of it in one file.
    log: Path
    placed: list[OrderCreated] = field(default_factory=list)
    placed_at: dict[str, float] = field(default_factory=dict)
    due: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    poison: dict[str, Poison] = field(default_factory=dict)
    #: The dead letters that were found, by message id, each with its service and reason.
    letters: dict[str, str] = field(default_factory=dict)
    #: How many dead letters were for a former release alone, and came to another.
    outdated: int = 0
    #: The exit codes of processes that ended though nothing of the test's had ended them.
    fallen: Counter[int | None] = field(default_factory=Counter)

    async def place(self, orders: Sequence[OrderCreated], *, rate: float, gifts: int = 0) -> None:
        """Send orders at a steady rate, each again until the broker confirms it; with every so many comes a gift."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            begun = loop.time()
            for number, order in enumerate(orders):
                await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))  # the rate
                tasks.create_task(self._place(order))
                if gifts and number % gifts == 0:
                    tasks.create_task(self._give(order.order_id, is_wanted=number % (2 * gifts) > 0))

    async def send_poison(self, poison: Poison) -> None:
        """Send it, and remember what has to come of it."""
        self.poison[str(poison.message.message_id)] = poison
        if poison.dare_id:
            self.due["dare", poison.dare_id] = frozenset({"Failed"})
        await self.send(poison.message)

    async def send(self, message: WireMessage) -> None:
        """Send a message until the broker confirms it, as a client must."""
        while True:
            try:
                await self.publisher.publish(message)
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
            except Exception:  # noqa: BLE001 -- whatever kept the broker from confirming, the client sends it again
                await asyncio.sleep(0.5)
            else:
                return

    def may_end_either_way(self, saga_type: str, saga_id: str) -> None:
        """Leave open how a saga ends: it was cancelled."""
        self.due[saga_type, saga_id] = frozenset({"Completed", "Failed"})

    async def _place(self, order: OrderCreated) -> None:
        self.placed_at[order.order_id] = datetime.now().astimezone().timestamp()
        self.due["order", order.order_id] = frozenset({"Failed" if is_bound_to_fail(order) else "Completed"})
        await self.send(WireMessage(order.model_dump_json().encode(), "order.OrderCreated"))
        self.placed.append(order)

    async def _give(self, order_id: str, *, is_wanted: bool) -> None:
        self.due["gift", order_id] = frozenset({"Completed" if is_wanted else "Failed"})
        gift = GiftOrdered(order_id=order_id, is_wanted=is_wanted)
        await self.send(WireMessage(gift.model_dump_json().encode(), routing_key(GiftOrdered)))

    async def take(self, name: str) -> Replica:
        """Take a running process of a service, as soon as there is one that nobody else has taken."""

        async def one() -> Replica | None:
            return self.fleet.oldest(name) if self.fleet.running(name) else None

        taken = await eventually(one, within=120, what=f"a running process of {name}")
        assert taken is not None
        return taken

    async def keep_running(self) -> None:
        """Start again what ended by itself, as an orchestrator does, until cancelled."""
        while True:
            for replica in [each for each in self.fleet.replicas if each.process.returncode is not None]:
                self.fleet.replicas.remove(replica)
                self.fallen[replica.process.returncode] += 1
                await self.fleet.launch(replica.name)
            await asyncio.sleep(0.2)  # as quick as an orchestrator is at its best

    async def ends(self) -> dict[tuple[str, str], tuple[str, float]]:
        """Return how each saga ended, and when, by its type and id, as the service that ended it wrote it."""
        query = f"SELECT saga_type, saga_id, saga_state, at FROM saga_log WHERE emitted_type IN ({_ENDS})"
        rows = [row for name in SERVICES for row in await self.rows(name, query)]
        return {(row["saga_type"], row["saga_id"]): (row["saga_state"], row["at"].timestamp()) for row in rows}

    async def count_ended(self) -> int:
        """Return how many sagas have ended."""
        query = f"SELECT count(*) AS ended FROM saga_log WHERE emitted_type IN ({_ENDS})"
        return sum([int((await self.rows(name, query))[0]["ended"]) for name in SERVICES])

    async def rows(self, name: str, query: str) -> list[dict[str, Any]]:
        """Ask a service's database, past all faults."""

        async def ask(connection: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in (await connection.execute(text(query))).mappings()]

        return await self.fleet.look(name, ask)

    def errors(self) -> Counter[str]:
        """Return how often the services logged which error."""
        lines = self.log.read_text(errors="replace").splitlines()
        return Counter(json.loads(line)["event"] if line.startswith("{") else line[:80] for line in lines)

    async def converged(self, *, within: float) -> list[str]:
        """Wait until `saga verify` finds nothing to complain of, and return what it still does after so long."""
        found: list[str] = []

        async def is_right() -> bool:
            nonlocal found
            found = await self._strays() or [] if await self.fleet.is_at_rest() else ["rows wait in an outbox"]
            found += self._unended(await self.ends())
            found = found or await self.fleet.violations()
            return not found

        try:
            await eventually(is_right, within=within, every=1.0, what="a right end")
        except AssertionError:
            return found
        return []

    def _unended(self, ends: Collection[tuple[str, str]]) -> list[str]:
        """Return what has not come to its end yet: sagas, and messages that have to be dead letters."""
        killed = {("dare", each.dare_id) for id_, each in self.poison.items() if id_ in self.dead_letters}
        sagas = [f"{kind} {saga_id} has not ended" for kind, saga_id in self.due.keys() - killed - set(ends)]
        letters = [
            f"{each.message.type} {id_} is no dead letter: {each.message.body[:60]!r}"
            for id_, each in self.poison.items()
            if each.dare_id is None and id_ not in self.dead_letters
        ]
        return [*sagas, *letters]

    async def _strays(self) -> list[str]:
        """Return the dead letters that no poison accounts for; the others are noted, and dropped as a person would."""
        strays = []
        for name in SERVICES:
            for row in await self.rows(name, "SELECT id, message_id, event_type, reason, error FROM dead_letters"):
                sent = self.poison.get(row["message_id"])
                if row["reason"] == _NO_LONGER_CONSUMED:
                    self.outdated += 1
                    await self._drop(name, row["id"])
                elif sent is None or not sent.may_be_letter:
                    strays.append(f"{name} gave up {row['event_type']}: {row['reason']}: {row['error'][:200]}")
                else:
                    self.dead_letters[row["message_id"]] = f"{name}: {row['reason']}"
                    await self._drop(name, row["id"])
        return strays

    async def _drop(self, name: str, letter_id: str) -> None:
        async with self.fleet.databases[name].engine.begin() as connection:
            await connection.execute(text("DELETE FROM dead_letters WHERE id = :id"), {"id": letter_id})


#: The events that end a saga of any type.
_ENDS = ", ".join(
    f"'{event.__name__}'"
    for saga in (order_saga, gift_saga, dare_saga)
    for event in (saga.completes_with, saga.fails_with)
)


@asynccontextmanager
async def world(
    servers: Servers,
    *,
    replicas: int = 2,
    own_ways: bool = False,
    environment: Mapping[str, str] | None = None,
    references: Mapping[str, str] | None = None,
) -> AsyncIterator[World]:
    """Start the services behind their proxies, and remove all that they made afterwards.

    `references` names the releases that are not those of `tests.chaos.shop.apps`.
    """
    async with AsyncExitStack() as stack:
        data_dir = Path(stack.enter_context(TemporaryDirectory(prefix="saga-chaos-")))
        databases, provider = PostgresDatabases(servers.database.url), PostgresDatabases(servers.provider.url)
        stack.push_async_callback(databases.drop)
        stack.push_async_callback(provider.drop)
        stack.enter_context(_environment("PAYMENT_GATEWAY_URL", await provider.url("gateway")))
        broker = await stack.enter_async_context(breakable(servers.broker))
        database = await stack.enter_async_context(breakable(servers.database))
        ways = {
            name: await stack.enter_async_context(Proxy(servers.broker.url)) if own_ways else broker.proxy
            for name in SERVICES
        }
        settings = Settings(broker_url=broker.url, exchange=f"chaos-{new_id()[-12:]}", data_dir=data_dir)
        urls = {name: await databases.url(name) for name in SERVICES}
        log = data_dir / "services.log"
        await _let_in(urls.values())
        fleet = Fleet(
            settings,
            urls,
            through=lambda name, url: ways[name].through(database.proxy.through(_as_service(url))),
            environment=PATIENT | _QUIET | dict(environment or {}),
            log=stack.enter_context(log.open("ab")),
            references={name: f"tests.chaos.shop.apps:{name}" for name in SERVICES} | dict(references or {}),
        )
        stack.push_async_callback(fleet.stop)
        for proxy in (database.proxy, broker.proxy, *ways.values()):
            stack.callback(proxy.heal)
        await fleet.start(*SERVICES * replicas)
        publisher = await stack.enter_async_context(RabbitPublisher(settings))
        yield World(fleet, broker, database, ways, publisher, log)


async def _let_in(urls: Iterable[str]) -> None:
    """Give each database to a login that is no superuser: rights can be revoked from it."""
    for url in urls:
        connection = await asyncpg.connect(url)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", LOGIN):
                await connection.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{LOGIN}'")
            await connection.execute(f'ALTER DATABASE "{urlsplit(url).path[1:]}" OWNER TO {LOGIN}')
        finally:
            await connection.close()


def _as_service(url: str) -> str:
    """Return a database's URL as the services' login has it; others as they are."""
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
