"""What the tables of the four services show about orders: how many ended, and whether stock and money add up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import money_adds_up, paid_as_ended, reserved_as_ended, stock_adds_up
from services.events import OrderCreated
from services.payment.gateway import open_gateway
from tests.end_to_end.placed_orders import is_bound_to_fail
from tests.eventually import eventually
from toolkit import Service, Settings
from toolkit.client.account_checks import AccountCheck
from toolkit.client.service_locations import in_database
from toolkit.client.verification import verify
from toolkit.persistence import outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_outage

T = TypeVar("T")


class FleetTables:
    """Reads the services' databases, whether their processes run or not."""

    def __init__(
        self,
        settings: Settings,
        databases: Mapping[str, str],
        *,
        references: Mapping[str, str],
        checks: Sequence[AccountCheck] | None = None,
    ) -> None:
        self.settings = settings
        self.databases = {name: Database(url) for name, url in databases.items()}
        self.references = dict(references)
        self.clients = {name: in_database(name, url, settings, self._declared) for name, url in databases.items()}
        self._checks = [reserved_as_ended, partial(paid_as_ended, settings=settings)] if checks is None else checks

    def _declared(self, name: str) -> Service:
        """Return the declarations of a service: its contract names the answers, which no entry emits."""
        reference = self.references.get(name, name)
        module, _, attribute = (reference if ":" in reference else f"services.{reference}.app:app").partition(":")
        found = getattr(import_module(module), attribute)
        assert isinstance(found, Service)
        return found

    async def close(self) -> None:
        """Close the databases."""
        for each in (*self.databases.values(), *self.clients.values()):
            await each.close()

    async def moved(self) -> int:
        """Return how many sagas the payment service has seen."""
        return len(await self._sagas("payment"))

    async def ended(self) -> Counter[str]:
        """Return how many sagas ended in each state, from the notification service's log."""
        return Counter(each.state for each in await self._sagas("notification"))

    async def all_ended(self, placed: Sequence[OrderCreated], *, within: float = 60) -> None:
        """Wait until each order ended as it should, and all outboxes are empty."""
        failed = sum(map(is_bound_to_fail, placed))
        due = Counter({"Completed": len(placed) - failed, "Failed": failed})

        async def as_due() -> bool:
            return await self.ended() == due and await self.is_at_rest()

        try:
            await eventually(as_due, within=within, every=0.2, what=f"{due}")
        except AssertionError as error:
            raise AssertionError(f"expected {due}, found {await self.ended()}") from error

    async def adds_up(self, placed: Sequence[OrderCreated]) -> list[str]:
        """Return what does not add up in stock and money, steps that ran twice included."""
        fulfilled = [order for order in placed if not is_bound_to_fail(order)]
        async with self.databases["inventory"].session() as session, open_gateway(self.settings) as gateway:
            checks = [
                await stock_adds_up(session, fulfilled),
                await money_adds_up(gateway, fulfilled),
            ]
        return [f"{check.claim}: {check.found}" for check in checks if not check.holds]

    async def violations(self) -> list[str]:
        """Return what `saga verify` finds wrong, or can't check, in all sagas, goods, money, outboxes and queues."""
        report = await verify(list(self.clients.values()), checks=self._checks, broker=self.settings)
        found = [f"{each.invariant}: {each.saga_id or 'all'}: {each.text}" for each in report.violations]
        return [*found, *report.unchecked, *report.unreachable.values()]

    async def verified(self, *, within: float = 20) -> list[str]:
        """Return what is wrong for good: the last service may still be recording an end."""
        until = time.monotonic() + within
        while found := await self.violations():
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        return found

    async def waiting_rows(self, name: str) -> int:
        """Return how many rows are in a service's outbox."""
        return await self.look(name, outbox.count)

    async def is_at_rest(self) -> bool:
        """Whether all outboxes are empty."""
        return not sum([await self.waiting_rows(name) for name in self.databases])

    async def _sagas(self, name: str) -> list[saga_log_queries.ListedSaga]:
        return await self.look(name, lambda connection: saga_log_queries.sagas(connection, limit=10_000))

    async def look(self, name: str, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run a query on a service's database; repeat it when a fault that the test causes interrupts it."""
        while True:
            try:
                async with self.databases[name].reading() as connection:
                    return await query(connection)
            except Exception as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(0.1)
