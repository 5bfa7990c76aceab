"""The dead letters in one service's database."""

from __future__ import annotations

from typing import Any

from toolkit.client.database_connection import DatabaseConnection
from toolkit.operations import dead_letters as operations
from toolkit.operations import views
from toolkit.operations.outcomes import BatchResult, DeadLetterOutcome
from toolkit.persistence import dead_letter_queries
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection
from toolkit.protocol.dead_letter_rows import DeadLetterGroup, DeadLetterSummary, WholeDeadLetter


class DatabaseDeadLetters(DatabaseConnection):
    """Reads, redrives and drops dead letters."""

    async def dead_letters(self, which: Selection, *, limit: int) -> list[DeadLetterSummary]:
        """Read dead letters."""
        declared = self._declared()
        return await self._read(lambda connection: views.dead_letter_list(connection, which, declared, limit=limit))

    async def dead_letter(self, dead_letter_id: str) -> WholeDeadLetter | None:
        """Read one dead letter."""
        declared = self._declared()
        return await self._read(lambda connection: views.whole_dead_letter(connection, dead_letter_id, declared))

    async def count(self, which: Selection) -> int:
        """Count dead letters."""
        return await self._read(lambda connection: dead_letter_queries.count(connection, which))

    async def groups(self) -> list[DeadLetterGroup]:
        """Read the dead letters in groups."""
        declared = self._declared()
        return await self._read(lambda connection: views.groups(connection, declared))

    async def redrive(
        self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False
    ) -> BatchResult[DeadLetterOutcome]:
        """Redrive one batch; the service's relay sends it."""
        options: Any = {"queue": self._queue, "now": self._clock.now(), "after": after, "dry_run": dry_run}
        return await self._write(lambda database: operations.redrive(database, which, by, **options))

    async def drop(
        self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False
    ) -> BatchResult[DeadLetterOutcome]:
        """Drop one batch."""
        options: Any = {"now": self._clock.now(), "after": after, "dry_run": dry_run}
        return await self._write(lambda database: operations.drop(database, which, by, **options))
