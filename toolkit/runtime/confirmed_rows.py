"""Outbox rows that the broker has confirmed, until a transaction deletes them.

A row that stays after its confirm is published twice at worst. So a delete may wait: under load the next batch's
transaction takes it along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from toolkit import failpoints
from toolkit.foreign_code.containment import contained
from toolkit.persistence.batch_write import BatchWrite
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain
from toolkit.persistence.outbox import OutboxRow

#: The pause after a failed delete, in seconds: the database is away, and asking faster does not help.
_PAUSE = 0.5
#: How long a confirmed row waits for a batch to delete it, in seconds: in a batch's one statement that costs next to
#: nothing, and a transaction of its own otherwise.
_LINGER = 0.25


#: Rows that the broker has confirmed: their ids, with the types of their events.
Sent = dict[str, str | None]


class ConfirmedRows:
    """Deletes the confirmed rows of one service's outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._event_types: Sent = {}
        self._deleting: set[str] = set()
        self._added = asyncio.Event()
        self._is_stopping = False
        #: Whether the last delete succeeded.
        self.is_healthy = True

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._event_types

    def add_all(self, rows: Iterable[OutboxRow]) -> None:
        """Add rows that the broker has confirmed."""
        self._event_types.update((row.id, row.message.type) for row in rows)
        self._added.set()

    @contextmanager
    def deletion(self) -> Iterator[Callable[[], Sent]]:
        """Lend a function that takes the confirmed rows for a transaction; keep them if the block raises."""
        taken: Sent = {}

        def claim() -> Sent:
            taken.update((row_id, kind) for row_id, kind in self._event_types.items() if row_id not in self._deleting)
            self._deleting.update(taken)
            return taken

        try:
            yield claim
            for row_id in taken:
                del self._event_types[row_id]
        finally:
            self._deleting.difference_update(taken)

    async def run(self) -> None:
        """Delete the rows, until `stop`, once one of them has lingered: under load the batches delete them all."""
        while not self._is_stopping:
            await self._added.wait()
            oldest = next(iter(self._event_types), None)
            await asyncio.sleep(_LINGER)
            if oldest is None or oldest in self._event_types:
                self._added.clear()
                await self.delete()
            elif not self._event_types:
                self._added.clear()

    def stop(self) -> None:
        """Let `run` return between two transactions."""
        self._is_stopping = True
        self._added.set()

    async def delete(self) -> None:
        """Delete, in one statement, all confirmed rows that no other transaction is deleting."""
        if not self._event_types.keys() - self._deleting:
            return
        try:
            with contained("deleting"), self.deletion() as claim:
                async with self._database.batch() as transaction:
                    sent = claim()
                    await transaction.write(BatchWrite(sent=list(sent)))
                    failpoints.here("deleted", sent.values())
        except Exception as error:  # noqa: BLE001 -- a row that stays is published twice at worst
            self.is_healthy = False
            complain("relay can't reach its database", error)
            await asyncio.sleep(_PAUSE)
            self._added.set()
        else:
            self.is_healthy = True
