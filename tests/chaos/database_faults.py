"""Faults of a step's statements: a killed query, a locked table, a revoked right.

A superuser causes them in the service's database, as an administrator may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]

from tests.chaos.plan import Fault, PlannedFault
from tests.chaos.world import LOGIN, World
from tests.end_to_end.placed_orders import orders

#: The table that each service's steps use first; the coordinator has the log alone.
_OWN_TABLES = {
    "inventory": "stock",
    "payment": "payment",
    "shipping": "shipment",
    "notification": "message",
    "fulfillment": "saga_log",
}
_TOOLKIT_TABLES = {
    Fault.LOG_REVOKED: "saga_log",
    Fault.OUTBOX_REVOKED: "saga_outbox",
    Fault.DEAD_LETTERS_REVOKED: "saga_dead_letters",
}
#: How long to wait for a query to kill, in seconds: longer than any outage of the broker.
_PATIENCE = 60.0
_ENDED_BY = {Fault.QUERY_CANCELLED: "pg_cancel_backend", Fault.QUERY_ENDED: "pg_terminate_backend"}
_WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' LIMIT 1"


async def kill_query(world: World, planned: PlannedFault) -> bool:
    """Block a step's query by a lock, and kill it; return whether there was one. An order of its own causes it."""
    async with _locked(world, planned), _connected(world, planned) as connection:
        placing = asyncio.create_task(world.place(orders(1), rate=1))
        try:
            until = time.monotonic() + _PATIENCE
            while (pid := await connection.fetchval(_WAITING)) is None:
                if time.monotonic() > until:
                    return False
                await asyncio.sleep(0.05)
            return bool(await connection.fetchval(f"SELECT {_ENDED_BY[planned.fault]}($1)", pid))
        finally:
            await placing


async def lock_table(world: World, planned: PlannedFault) -> bool:
    """Lock a table that the service's steps need."""
    async with _locked(world, planned):
        await asyncio.sleep(planned.lasts)  # the lock's own length
    return True


async def revoke_rights(world: World, planned: PlannedFault) -> bool:
    """Revoke all rights of the service on a table, and grant them again."""
    table = _TOOLKIT_TABLES.get(planned.fault, _OWN_TABLES[planned.service])
    async with _connected(world, planned) as connection:
        await connection.execute(f"REVOKE ALL ON {table} FROM {LOGIN}")
        try:
            await asyncio.sleep(planned.lasts)  # as long as the right is missing
        finally:
            await connection.execute(f"GRANT ALL ON {table} TO {LOGIN}")
    return True


@asynccontextmanager
async def _locked(world: World, planned: PlannedFault) -> AsyncIterator[None]:
    async with _connected(world, planned) as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {_OWN_TABLES[planned.service]} IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def _connected(world: World, planned: PlannedFault) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world.fleet.databases[planned.service].url)
    try:
        yield connection
    finally:
        await connection.close()
