"""What befalls a step's own statements: a query that is killed, a table that is locked, a right that is revoked.

All of it is done by a superuser in the service's own database, as an administrator would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]

from tests.chaos.plan import Blow, Fault
from tests.chaos.world import LOGIN, World
from tests.end_to_end.placed_orders import orders

#: The table that each service's steps use first.
_OWN_TABLES = {"inventory": "stock", "payment": "payment", "shipping": "shipment", "notification": "message"}
_TOOLKIT_TABLES = {
    Fault.LOG_REVOKED: "saga_log",
    Fault.OUTBOX_REVOKED: "outbox",
    Fault.LETTERS_REVOKED: "dead_letters",
}
#: How long a query is waited for that can be killed, in seconds: longer than any outage of the broker's.
_PATIENCE = 60.0
_ENDED_BY = {Fault.QUERY_CANCELLED: "pg_cancel_backend", Fault.QUERY_ENDED: "pg_terminate_backend"}
_WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' LIMIT 1"


async def kill_query(world: World, blow: Blow) -> bool:
    """Hold a step's query by a lock, and kill it; return whether there was one. An order of its own sees to that."""
    async with _locked(world, blow), _connected(world, blow) as connection:
        placing = asyncio.create_task(world.place(orders(1), rate=1))
        try:
            until = time.monotonic() + _PATIENCE
            while (pid := await connection.fetchval(_WAITING)) is None:
                if time.monotonic() > until:
                    return False
                await asyncio.sleep(0.05)
            return bool(await connection.fetchval(f"SELECT {_ENDED_BY[blow.fault]}($1)", pid))
        finally:
            await placing


async def lock_table(world: World, blow: Blow) -> bool:
    """Hold a table that the service's steps need."""
    async with _locked(world, blow):
        await asyncio.sleep(blow.lasts)  # the lock's own length
    return True


async def revoke_rights(world: World, blow: Blow) -> bool:
    """Take all rights on a table away from the service, and give them back."""
    table = _TOOLKIT_TABLES.get(blow.fault, _OWN_TABLES[blow.service])
    async with _connected(world, blow) as connection:
        await connection.execute(f"REVOKE ALL ON {table} FROM {LOGIN}")
        try:
            await asyncio.sleep(blow.lasts)  # as long as the right is missing
        finally:
            await connection.execute(f"GRANT ALL ON {table} TO {LOGIN}")
    return True


@asynccontextmanager
async def _locked(world: World, blow: Blow) -> AsyncIterator[None]:
    async with _connected(world, blow) as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {_OWN_TABLES[blow.service]} IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def _connected(world: World, blow: Blow) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world.fleet.databases[blow.service].url)
    try:
        yield connection
    finally:
        await connection.close()
