"""Retention: old rows are deleted in small batches while the service works; never a row of an open saga.

A saga is pruned when this service knows that it has ended and nothing was written of it for that long. The log is the
fence, so the fence goes with it: `SHORTEST_RETENTION` is the least time that it stays, and `pruning_watermark` defines
what happens to an event that comes later still.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from toolkit.clock import Clock
from toolkit.configuration.settings import Settings
from toolkit.foreign_code.containment import contain
from toolkit.persistence import audit_log, dead_letters, overdue_steps, pruning_watermark, saga_waits
from toolkit.persistence.audit_log import Change, Operator
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain

log = structlog.get_logger("toolkit")

#: The most sagas, dead letters and audit rows of one transaction: few enough that steps are not delayed.
AT_ONCE = 500
#: The pause once no old row is left, in seconds.
_PAUSE = 60.0
#: The least pause after a batch, in seconds; it is as long as the batch took.
_BREATH = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The rows that one batch pruned; `is_all`: no old row is left."""

    sagas: int
    dead_letters: int
    audit: int
    is_all: bool


async def prune(
    database: Database, *, older_than: timedelta, now: datetime, by: Operator | None = None, most: int = AT_ONCE
) -> Pruned:
    """Delete, in one transaction, up to so many of what is older: ended sagas, dead letters, rows of the audit.

    What an operator prunes is audited; what the setting does is not.
    """
    before = now - older_than
    async with database.transaction() as session:
        connection = await session.connection()
        # Dead letters first: without its saga, a dead letter of an open saga looks like one of an ended saga.
        columns = dead_letters.dead_letters.c
        is_open = pruning_watermark.is_open(columns.saga_id, columns.saga_type)
        dropped = await dead_letters.prune(connection, before=before, most=most, unless=is_open)
        sagas = await pruning_watermark.prune(connection, before=before, most=most)
        await overdue_steps.forget_sagas(connection, sagas)
        await saga_waits.forget_sagas(connection, sagas)
        rows = await audit_log.prune(connection, before=before, most=most)
        if by and (sagas or dropped or rows):
            subject = f"before {before.isoformat()}: {len(sagas)} sagas, {dropped} dead letters, {rows} audit rows"
            await audit_log.add(connection, [Change("prune", subject)], by, now=now)
    is_all = not sagas and dropped < most and rows < most
    return Pruned(sagas=len(sagas), dead_letters=dropped, audit=rows, is_all=is_all)


class Pruner:
    """Prunes one service's database for as long as it works; does nothing where the settings name no retention."""

    def __init__(self, service: str, settings: Settings, *, database: Database, clock: Clock) -> None:
        self._service = service
        self._older_than = settings.retention
        self._database = database
        self._clock = clock
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Prune batch after batch until `stop`."""
        if not self._older_than:
            await self._stopping.wait()
        while self._older_than and not self._stopping.is_set():
            began = time.monotonic()
            is_all = await self._batch(self._older_than)
            await self._rest(_PAUSE if is_all else max(_BREATH, time.monotonic() - began))

    def stop(self) -> None:
        """Let `run` return after the current batch."""
        self._stopping.set()

    async def _batch(self, older_than: timedelta) -> bool:
        try:
            pruning = prune(self._database, older_than=older_than, now=self._clock.now())
            pruned = await contain("pruning", pruning)
        except Exception as error:  # noqa: BLE001 -- pruning outlives every outage of its database; it is in no hurry
            complain("pruning failed; it is tried again later", error, service=self._service)
            return True
        if pruned.sagas or pruned.dead_letters:
            log.info("pruned what is old", service=self._service, sagas=pruned.sagas, dead_letters=pruned.dead_letters)
        return pruned.is_all

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
