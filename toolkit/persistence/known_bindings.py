"""The bindings of a service's queue, recorded in its database, since AMQP can't list them.

Each process renews a lease on the keys that it declares. A key that this release does not declare and that no process
renews was left by a former release: it is unbound, and recorded as no longer consumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Column, Integer, String, Table, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.errors import describe
from toolkit.ids import new_id
from toolkit.persistence.schema import UtcDateTime, insert_into, metadata

if TYPE_CHECKING:
    from toolkit.persistence.database import Database

log = structlog.get_logger("toolkit")

bindings = Table(
    "saga_bindings",
    metadata,
    Column("routing_key", String, primary_key=True),
    Column("holder", String, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("unbound", Integer, nullable=False),
)

#: A lease ends after so many missed renewals, and not before a minute: in a rolling deployment a process that pauses
#: for a while keeps the keys that only its own release declares.
_RENEWALS, _LEAST_LEASE = 3, timedelta(minutes=1)
#: How long, in seconds, the declaration of queue and bindings waits for the database.
_PATIENCE = 2.0
#: A process that stops in order ends its lease by this time.
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Bindings:
    """The bindings that one process declares, and those of its service's other processes.

    - `former`: the routing keys that only other releases declared.
    """

    def __init__(self, database: Database, *, renewed_every: timedelta) -> None:
        self.former: frozenset[str] = frozenset()
        self._database = database
        self._lease = max(_RENEWALS * renewed_every, _LEAST_LEASE)
        self._holder = new_id()
        self._renewing: asyncio.Task[list[str]] | None = None

    async def renew(self, keys: Collection[str]) -> list[str]:
        """Renew the lease of these keys, before they are bound, and return the keys to unbind.

        During an outage of the database nothing is unbound.
        """
        # In a separate task, which is never cancelled: an interrupted statement may keep SQLite's lock.
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(keys))
        await asyncio.wait({self._renewing}, timeout=_PATIENCE)
        if not self._renewing.done():
            return []
        renewed, self._renewing = self._renewing, None
        return renewed.result()

    async def unbound(self, keys: Collection[str]) -> None:
        """Record that these keys were unbound."""
        if keys:
            log.info("unbound what no release consumes any more", routing_keys=sorted(keys))
            statement = update(bindings).where(bindings.c.routing_key.in_(list(keys))).values(unbound=1)
            async with self._database.transaction() as session:
                await (await session.connection()).execute(statement)

    async def leave(self) -> None:
        """End this process's lease at once; if the database does not accept that, the lease expires."""
        await asyncio.wait({asyncio.create_task(self._leave())}, timeout=_PATIENCE)

    async def _leave(self) -> None:
        statement = update(bindings).where(bindings.c.holder == self._holder).values(at=_LONG_AGO)
        with suppress(Exception):
            async with self._database.transaction() as session:
                await (await session.connection()).execute(statement)

    async def _renew(self, keys: Collection[str]) -> list[str]:
        now = datetime.now(UTC)
        try:
            async with self._database.transaction() as session:
                connection = await session.connection()
                await self._write(connection, keys, now)
                self.former = await _others(connection, keys)
                return await _abandoned(connection, keys, before=now - self._lease)
        except Exception as error:  # noqa: BLE001 -- the broker's side continues: the next renewal catches up
            log.warning("bindings could not be recorded", error=describe(error))
            return []

    async def _write(self, connection: AsyncConnection, keys: Collection[str], now: datetime) -> None:
        new = insert_into(bindings, connection)
        renewed = new.on_conflict_do_update(
            index_elements=["routing_key", "holder"], set_={"at": new.excluded.at, "unbound": 0}
        )
        rows = [{"routing_key": key, "holder": self._holder, "at": now, "unbound": 0} for key in sorted(keys)]
        await connection.execute(renewed, rows)
        is_old = (bindings.c.routing_key.in_(list(keys)), bindings.c.at < now - self._lease)
        await connection.execute(delete(bindings).where(*is_old))


async def _others(connection: AsyncConnection, keys: Collection[str]) -> frozenset[str]:
    query = select(bindings.c.routing_key).where(bindings.c.routing_key.not_in(list(keys)))
    return frozenset((await connection.execute(query)).scalars())


async def _abandoned(connection: AsyncConnection, keys: Collection[str], *, before: datetime) -> list[str]:
    """Return the other keys that are bound and were not renewed since `before`."""
    query = (
        select(bindings.c.routing_key)
        .where(bindings.c.routing_key.not_in(list(keys)), bindings.c.unbound == 0)
        .group_by(bindings.c.routing_key)
        .having(func.max(bindings.c.at) < before)
    )
    return list((await connection.execute(query)).scalars())
