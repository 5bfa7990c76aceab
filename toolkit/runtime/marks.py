"""The marks of one process's messages: what is asked for while a transaction runs is done by the next one together.

After a crash hundreds of messages are delivered again at once; a transaction for each would take longer than their
steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import structlog

from toolkit.errors import describe
from toolkit.foreign_code.containment import contain
from toolkit.persistence import suspect_messages
from toolkit.persistence.database import Database

log = structlog.get_logger("toolkit")

#: How long a mark is kept: within that time a copy of what was given up is still known, a week of nudges and redrives.
_KEPT = timedelta(days=7)

#: The calls that wait for one transaction, by message.
_Waiting = dict[str, "asyncio.Future[int | None]"]


class Marks:
    """Reads, adds and deletes marks in one service's database.

    Marks only protect other messages: where the database does not answer, a call returns None, and the batcher waits
    for it.
    """

    def __init__(self, service: str, database: Database) -> None:
        self._service = service
        self._database = database
        self._counted: _Waiting = {}
        self._added: _Waiting = {}
        self._deleted: _Waiting = {}
        self._writing: asyncio.Task[None] | None = None

    async def prepare(self) -> set[str]:
        """Delete old marks, and return the messages that have one."""
        async with self._database.transaction() as session:
            connection = await session.connection()
            await suspect_messages.prune(connection, before=datetime.now(UTC) - _KEPT)
            return await suspect_messages.marked_messages(connection, least=1)

    async def count(self, suspect: str) -> int | None:
        """Return how many marks a message has."""
        return await self._next(self._counted, suspect)

    async def add(self, suspect: str) -> int | None:
        """Add a mark to a message, and return how many it has once that is committed."""
        return await self._next(self._added, suspect)

    async def delete(self, suspect: str) -> None:
        """Delete all marks of a message."""
        await self._next(self._deleted, suspect)

    async def take_back(self, some: Collection[str]) -> None:
        """Remove one mark from each of these messages."""
        try:
            async with self._database.transaction() as session:
                await suspect_messages.take_back(await session.connection(), some)
        except Exception as error:  # noqa: BLE001 -- each counts as one death at most
            self._complain(error)

    async def _next(self, waiting: _Waiting, suspect: str) -> int | None:
        """Wait for the transaction after the current one."""
        if suspect not in waiting:
            waiting[suspect] = asyncio.get_running_loop().create_future()
        future = waiting[suspect]
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await asyncio.shield(future)  # copies share it

    async def _write(self) -> None:
        while self._counted or self._added or self._deleted:
            counted, added, deleted = self._counted, self._added, self._deleted
            self._counted, self._added, self._deleted = {}, {}, {}
            found: dict[str, int] = {}
            marked: dict[str, int] = {}
            try:
                found, marked = await contain("marks", self._commit(counted, added, deleted))
            except Exception as error:  # noqa: BLE001 -- the messages are executed without
                self._complain(error)
            for waiting, result in ((deleted, {}), (counted, found), (added, marked)):
                for suspect, future in waiting.items():
                    future.set_result(result.get(suspect))

    async def _commit(
        self, counted: Collection[str], added: Collection[str], deleted: Collection[str]
    ) -> tuple[dict[str, int], dict[str, int]]:
        async with self._database.transaction() as session:
            connection = await session.connection()
            await suspect_messages.unmark(connection, deleted)
            found = await suspect_messages.marks(connection, counted)
            return found, await suspect_messages.mark(connection, added, now=datetime.now(UTC))

    def _complain(self, error: Exception) -> None:
        log.warning("messages could not be marked", service=self._service, error=describe(error))
