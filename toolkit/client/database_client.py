"""A service by its database, beside the running service or without it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.client.database_dead_letters import DatabaseDeadLetters
from toolkit.client.service_client import PAGE, Entries, Page
from toolkit.declaration.contract import Contract
from toolkit.errors import InvalidAnswerError, UnreachableError
from toolkit.operations import answers, sagas, views
from toolkit.operations.outcomes import BatchResult, SagaOutcome
from toolkit.operations.questions import open_questions
from toolkit.operations.search import Found, Search, search
from toolkit.operations.views import SagaView
from toolkit.persistence import (
    audit_log,
    contradictions,
    dead_letter_queries,
    known_steps,
    outbox,
    overdue_steps,
    pruning_watermark,
    saga_log_queries,
)
from toolkit.persistence.audit_log import AuditEntry, Operator
from toolkit.persistence.contradictions import Contradiction
from toolkit.persistence.dead_letters import Selection
from toolkit.persistence.known_steps import UndeclaredStep
from toolkit.protocol.invariants import Backlog
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage
from toolkit.protocol.question_rows import AnswerOutcome, Question
from toolkit.runtime import pruner
from toolkit.runtime.pruner import Pruned
from toolkit.tracking.snapshot import Snapshot


class DatabaseClient(DatabaseDeadLetters):
    """Reads and operates a service in its database."""

    async def entries(
        self, saga_id: str | None = None, limit: int | None = None, *, saga_type: str | None = None
    ) -> Entries:
        """Read log entries."""
        which: Any = {"saga_id": saga_id, "saga_type": saga_type, "limit": limit}
        return await self._read(lambda connection: saga_log_queries.entries(connection, **which))

    async def page(self, after: int) -> Page:
        """Read the next entries."""
        return await self._read(lambda connection: saga_log_queries.page(connection, after=after, limit=PAGE))

    async def since(self, after: int | None, limit: int) -> tuple[Entries, int]:
        """Read the next entries, or the newest."""
        return await self._read(lambda connection: saga_log_queries.since(connection, after=after, limit=limit))

    async def backlog(self) -> Backlog:
        """Count the backlog."""
        return await self._read(self._backlog)

    async def search(self, which: Search, *, limit: int = 100, cursor: str | None = None) -> Found:
        """Read a page of sagas."""
        now, row = self._clock.now(), None if cursor is None else int(cursor)
        return await self._read(lambda connection: search(connection, which, now=now, limit=limit, cursor=row))

    async def saga(self, saga_id: str, saga_type: str | None = None) -> SagaView:
        """Read all of one saga; an event's body is shown only where its declaration is found."""
        declared = self._declared()
        return await self._read(lambda connection: views.view(connection, saga_id, declared, saga_type=saga_type))

    async def replay(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Replay a saga; the service's relay sends its events."""
        service = self._service()
        options: Any = {"saga_type": saga_type, "now": self._clock.now()}
        return await self._write(lambda database: sagas.replay(database, service, saga_id, by, **options))

    async def nudge(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Nudge a saga; the service's relay sends its event."""
        service = self._service()
        options: Any = {"saga_type": saga_type, "now": self._clock.now()}
        return await self._write(lambda database: sagas.nudge(database, service, saga_id, by, **options))

    async def abort(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Abort a saga; the service's relay sends the request to all services."""
        options: Any = {"saga_type": saga_type, "now": self._clock.now()}
        return await self._write(lambda database: sagas.abort(database, saga_id, by, **options))

    async def questions(self, *, limit: int) -> list[Question]:
        """Read the open questions; only the declarations show which steps wait for an answer."""
        contract = self._contract()
        return await self._read(lambda connection: open_questions(connection, contract, limit=limit))

    async def answer(
        self, saga_id: str, event: str, fields: Mapping[str, Any], by: Operator, saga_type: str | None = None
    ) -> AnswerOutcome | None:
        """Answer a step; the service's relay sends the answer, and the log shows what became of it."""
        taken = answers.answers_taken(self._service())
        if not (steps := taken.get(event)):
            raise InvalidAnswerError(answers.not_taken(self.service, event, taken))
        built = answers.build(steps, event, saga_id, fields)
        options: Any = {"saga_type": saga_type, "now": self._clock.now(), "queue": self._queue}
        sent = await self._write(lambda database: answers.answer(database, steps, saga_id, built, by, **options))
        try:
            return sent and await answers.outcome_of(self._opened(), steps, built, sent)
        except (DBAPIError, OSError) as error:
            raise self._unreadable(error) from error

    async def prune(self, older_than: timedelta, by: Operator) -> Pruned:
        """Prune one batch."""
        now = self._clock.now()
        return await self._write(lambda database: pruner.prune(database, older_than=older_than, now=now, by=by))

    async def audit(self, *, limit: int) -> list[AuditEntry]:
        """Read the audit."""
        return await self._read(lambda connection: audit_log.listed(connection, limit=limit))

    async def overdue(self, *, limit: int) -> list[OverdueStep]:
        """Read the overdue steps."""
        return await self._read(lambda connection: overdue_steps.listed(connection, limit=limit))

    async def contradictions(self, *, limit: int) -> list[Contradiction]:
        """Read the contradictions."""
        return await self._read(lambda connection: contradictions.listed(connection, limit=limit))

    async def undeclared_steps(self) -> list[UndeclaredStep]:
        """Read the steps that the contract has no more."""
        try:
            contract = self._contract()
        except UnreachableError:
            return []
        return await self._read(lambda connection: known_steps.former(connection, contract))

    async def outbox(self, *, limit: int) -> list[UnsentMessage]:
        """Read the outbox."""
        return await self._read(lambda connection: outbox.listed(connection, limit=limit))

    async def snapshot(self) -> Snapshot:
        """Read the statistics; the state of broker and relay is not in the database."""
        try:
            return await self._statistics.snapshot(self._opened(), {"database": True})
        except (DBAPIError, OSError) as error:
            raise self._unreadable(error) from error

    async def ready(self) -> dict[str, bool]:
        """Return nothing: a database has neither broker nor relay."""
        return {}

    async def contract(self) -> Contract:
        """Return the contract of the declarations."""
        return self._contract()

    async def _backlog(self, connection: AsyncConnection) -> Backlog:
        return Backlog(
            self.service,
            outbox=await outbox.count(connection),
            dead_letters=await dead_letter_queries.count(connection, Selection()),
            pruned_until=await pruning_watermark.reached(connection),
        )
