"""A sandbox that simulates a clearing house, with a ledger of its own, outside the services' transactions.

One key is one settlement, even if calls are lost, repeated or concurrent: each call is one transaction on its row, and
all replicas share the rows. The scheme decides what the clearing house does:

| scheme | the clearing house |
|---|---|
| `instant` | settles the transfer |
| `flaky` | fails twice, then settles it |
| `slow` | settles it, and answers long after the caller's timeout |
| `down` | always fails; a recall works |
| any other | turns it down |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field as Setting
from pydantic_settings import SettingsConfigDict
from sqlalchemy import BigInteger, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import registry
from sqlmodel import AutoString, Field, SQLModel

from toolkit import Settings
from toolkit.configuration.environment import FromEnvironment, read_settings
from toolkit.configuration.server_urls import DatabaseUrl
from toolkit.configuration.settings import LONGEST_WAIT, Duration
from toolkit.errors import UnreachableError
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.schema import create_tables, insert_into

metadata = MetaData()

WORKING_SCHEMES = frozenset({"instant", "flaky", "slow"})
#: How often `flaky` fails before it works; the step has more attempts.
FLAKY_FAILURES = 2


class ClearingHouseUnavailableError(Exception):
    """The clearing house did not answer, so the outcome is unknown; call again with the same key, or recall it."""


class ClearingHouseSettings(FromEnvironment):
    """The sandbox's settings, from `CLEARING_HOUSE_…`."""

    model_config = SettingsConfigDict(env_prefix="CLEARING_HOUSE_")

    url: DatabaseUrl | None = Setting(
        None, description="sqlite:///path, or postgresql://user:password@host:port/database"
    )
    """The ledger's URL, `sqlite:///path` or `postgresql://…`; if unset, `clearing-house.db` in the data directory."""
    slowness: Annotated[Duration, Setting(ge=timedelta(0), le=LONGEST_WAIT)] = timedelta(seconds=120)
    """The time until `slow` answers, in seconds."""


class SettlementState(StrEnum):
    """The state of a settlement; only an open one can still be settled."""

    OPEN = "open"
    SETTLED = "settled"
    TURNED_DOWN = "turned down"
    RECALLED = "recalled"


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of the clearing house's table alone."""


class Settlement(Base, table=True):
    """One row of the ledger: the amount that moves between the banks under one key, and why if it does not."""

    key: str = Field(primary_key=True)
    amount: int = Field(default=0, sa_type=BigInteger)
    state: SettlementState = Field(default=SettlementState.OPEN, sa_type=AutoString)
    reason: str = ""
    attempts: int = 0

    def settle(self, amount: int, scheme: str) -> None:
        """Settle this amount, or turn it down; a settlement that is not open only counts the attempt."""
        self.attempts += 1
        is_failure = scheme == "down" or (scheme == "flaky" and self.attempts <= FLAKY_FAILURES)
        if self.state != SettlementState.OPEN or is_failure:
            return
        if scheme in WORKING_SCHEMES:
            self.amount, self.state = amount, SettlementState.SETTLED
        else:
            self.state, self.reason = SettlementState.TURNED_DOWN, f"the clearing house has no scheme {scheme!r}"

    def recall(self) -> None:
        """Reverse the settlement if there was one, and prevent a later one."""
        if self.state in (SettlementState.OPEN, SettlementState.SETTLED):
            self.amount, self.state, self.reason = 0, SettlementState.RECALLED, "the transfer was recalled"


class ClearingHouse:
    """The clearing house's interface: an idempotency key identifies a settlement; amounts are in minor units."""

    def __init__(self, ledger: Database, *, slowness: timedelta) -> None:
        self._ledger = ledger
        self._slowness = slowness

    async def settle(self, key: str, amount: int, *, scheme: str) -> Settlement:
        """Settle this amount, once per key, and return the settlement, or the one that was turned down or recalled.

        Raises:
            ClearingHouseUnavailableError: no answer, so the outcome is unknown.
        """
        async with self._locked(key) as settlement:
            settlement.settle(amount, scheme)
        if scheme == "slow":
            # Only now, with the amount settled: the caller who gave up can't know the outcome.
            await asyncio.sleep(self._slowness.total_seconds())
        if settlement.state == SettlementState.OPEN:
            raise ClearingHouseUnavailableError(f"attempt {settlement.attempts} to settle {key} failed; repeat it")
        return settlement

    async def recall(self, key: str) -> None:
        """Reverse the settlement if there was one, and prevent a later one."""
        async with self._locked(key) as settlement:
            settlement.recall()

    @asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[Settlement]:
        """Insert the settlement if it is new, lock its row, and write its changes at the end."""
        async with self._ledger.transaction() as session:
            connection = await session.connection()
            new = insert_into(metadata.tables["settlement"], connection).values(Settlement(key=key).model_dump())
            await connection.execute(new.on_conflict_do_nothing())
            yield await session.get_one(Settlement, key, with_for_update=True)


def ledger_url(settings: Settings) -> str:
    """Return the URL of the ledger: as `CLEARING_HOUSE_URL` has it, or of a file in the data directory."""
    return read_settings(ClearingHouseSettings).url or f"sqlite:///{settings.data_dir / 'clearing-house.db'}"


@asynccontextmanager
async def open_clearing_house(settings: Settings) -> AsyncIterator[ClearingHouse]:
    """Open the sandbox on its ledger; `CLEARING_HOUSE_URL` lets replicas on several machines share one.

    Raises:
        SettingsError: a setting is not allowed.
        UnreachableError: the ledger does not answer.
    """
    ledger = Database(ledger_url(settings))
    try:
        try:
            async with ledger.engine.begin() as connection:
                await create_tables(connection, metadata)
        except (DBAPIError, OSError) as error:
            raise UnreachableError(
                f"the ledger at CLEARING_HOUSE_URL can't be used: {describe_fault(error)}"
            ) from error
        yield ClearingHouse(ledger, slowness=read_settings(ClearingHouseSettings).slowness)
    finally:
        await ledger.close()
