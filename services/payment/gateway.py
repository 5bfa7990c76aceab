"""A sandbox that simulates a payment provider, with a ledger of its own, outside the service's transactions.

One key is one charge, even if calls are lost, repeated or concurrent: each call is one transaction on the charge's
row, and all replicas share the rows. The payment method decides what a charge does:

| payment method | what a charge does |
|---|---|
| `card_ok` | takes the money |
| `card_declined`, and any that is not listed | is declined |
| `card_flaky` | fails twice, then takes the money |
| `card_slow` | takes the money, and answers long after the caller's timeout |
| `card_down` | always fails; a void works |
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from sqlalchemy import event, func, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.payment.ledger import Charge, ChargeState, charges, metadata
from toolkit import Settings
from toolkit.configuration.environment import FromEnvironment, read_settings
from toolkit.configuration.server_urls import DatabaseUrl, driver_options
from toolkit.configuration.settings import LONGEST_WAIT, Duration
from toolkit.errors import UnreachableError
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.postgres_tls import with_tls
from toolkit.persistence.sqlite_files import make_private, make_room_for

#: The advisory lock for creating the ledger on PostgreSQL, an arbitrary number: concurrent `CREATE TABLE` can fail.
LEDGER_LOCK = 7_243_001


class GatewayUnavailableError(Exception):
    """The payment provider did not answer, so the outcome is unknown; call again with the same key, or void it."""


class GatewaySettings(FromEnvironment):
    """The sandbox's settings, from `PAYMENT_GATEWAY_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMENT_GATEWAY_")

    url: DatabaseUrl | None = Field(
        None, description="sqlite:///path, or postgresql://user:password@host:port/database"
    )
    """The ledger's URL, `sqlite:///path` or `postgresql://…`; if unset, `gateway.db` in the data directory."""
    slowness: Annotated[Duration, Field(ge=timedelta(0), le=LONGEST_WAIT)] = timedelta(seconds=120)
    """The time until `card_slow` answers, in seconds."""


@dataclass(frozen=True, slots=True)
class Charged:
    """The money was taken, now or by an earlier call with this key."""

    amount: int


@dataclass(frozen=True, slots=True)
class Declined:
    """No money is taken under this key."""

    reason: str


class Gateway:
    """The provider's interface: an idempotency key identifies a charge; amounts are in minor units."""

    def __init__(self, engine: AsyncEngine, *, slowness: timedelta) -> None:
        self._engine = engine
        self._slowness = slowness
        self._under_way: set[asyncio.Task[Charge]] = set()

    async def charge(self, key: str, amount: int, *, payment_method: str) -> Charged | Declined:
        """Take this amount, once per key.

        Raises:
            GatewayUnavailableError: no answer, so the outcome is unknown.
        """
        charge = await self._change(key, lambda charge: charge.charge(amount, payment_method))
        if payment_method == "card_slow":
            # Only now, with the money taken: the caller who gave up can't know the outcome.
            await asyncio.sleep(self._slowness.total_seconds())
        return _answer(charge)

    async def void(self, key: str) -> None:
        """Undo the charge if there was one, and prevent a later one."""
        await self._change(key, Charge.void)

    async def refund(self, key: str, amount: int) -> None:
        """Refund this amount, once per key.

        Raises:
            RefundRefusedError: this amount was not taken under this key.
        """
        await self._change(key, lambda charge: charge.refund(amount))

    async def ledger(self) -> list[Charge]:
        """Return all charges, in the order of their keys."""
        async with self._engine.begin() as connection:
            rows = await connection.execute(select(charges).order_by(charges.c.key))
            return [_read(row) for row in rows.mappings()]

    async def kept(self) -> int:
        """Return the shop's total: the sum of all charges less all refunds."""
        total = select(func.coalesce(func.sum(charges.c.taken - charges.c.returned), 0))
        async with self._engine.begin() as connection:
            return int((await connection.execute(total)).scalar_one())

    async def finish(self) -> None:
        """Wait for the calls whose callers have hung up."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _change(self, key: str, change: Callable[[Charge], Charge]) -> Charge:
        """Complete the call even if the caller hangs up, as a provider does."""
        task = asyncio.create_task(self._write(key, change))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _write(self, key: str, change: Callable[[Charge], Charge]) -> Charge:
        """Insert the charge if it is new, lock its row, and write the changed charge."""
        this = charges.c.key == key
        async with self._engine.begin() as connection:
            await connection.execute(_OPEN_UNLESS_KNOWN, asdict(Charge(key=key)))
            row = (await connection.execute(select(charges).where(this).with_for_update())).mappings().one()
            charge = change(_read(row))
            await connection.execute(update(charges).where(this).values(asdict(charge)))
        return charge


#: Plain SQL: SQLite and PostgreSQL share this syntax, but not SQLAlchemy's construct for it.
_OPEN_UNLESS_KNOWN = text(
    "INSERT INTO charge (key, state, taken, returned, reason, attempts)"
    " VALUES (:key, :state, :taken, :returned, :reason, :attempts) ON CONFLICT (key) DO NOTHING"
)


def _read(row: Mapping[Any, Any]) -> Charge:
    return Charge(**{**row, "state": ChargeState(row["state"])})


def _answer(charge: Charge) -> Charged | Declined:
    if charge.state is ChargeState.OPEN:
        raise GatewayUnavailableError(f"attempt {charge.attempts} to charge {charge.key} got no answer; repeat it")
    return Charged(charge.taken) if charge.state is ChargeState.CHARGED else Declined(charge.reason)


def ledger_url(settings: Settings) -> str:
    """Return the URL of the ledger: as `PAYMENT_GATEWAY_URL` has it, or of a file in the data directory."""
    return read_settings(GatewaySettings).url or f"sqlite:///{settings.data_dir / 'gateway.db'}"


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """Open the sandbox on its ledger; `PAYMENT_GATEWAY_URL` lets replicas on several machines share one.

    Raises:
        SettingsError: a setting is not allowed.
        UnreachableError: the ledger does not answer.
    """
    engine = _engine(ledger_url(settings))
    gateway = Gateway(engine, slowness=read_settings(GatewaySettings).slowness)
    try:
        try:
            async with engine.begin() as connection:
                await _make_ledger(connection)
        except (DBAPIError, OSError) as error:
            raise UnreachableError(
                f"the ledger at PAYMENT_GATEWAY_URL can't be used: {describe_fault(error)}"
            ) from error
        yield gateway
    finally:
        await gateway.finish()
        await engine.dispose()


def _engine(url: str) -> AsyncEngine:
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        place, options = with_tls(*driver_options(parsed))
        address = place.set(drivername="postgresql+asyncpg")
        return create_async_engine(address, hide_parameters=True, connect_args=options)
    make_room_for(parsed)
    # One connection: SQLite has one writer anyway, and the pool is fair, whereas polling a lock is not.
    engine = create_async_engine(
        parsed.set(drivername="sqlite+aiosqlite"), pool_size=1, max_overflow=0, hide_parameters=True
    )
    event.listen(engine.sync_engine, "do_connect", lambda *_: make_private(parsed.database))
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    # IMMEDIATE: of two transactions that read first, only one could go on to write.
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own
    cursor = connection.cursor()
    # NORMAL: the file survives a killed process, which is enough for a sandbox.
    cursor.execute("PRAGMA busy_timeout = 5000")
    cursor.execute("PRAGMA synchronous = NORMAL")
    # SQLite does not wait for this lock. The connection that holds it switches the file for all others, permanently.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


async def _make_ledger(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(LEDGER_LOCK)))
    await connection.run_sync(metadata.create_all)
