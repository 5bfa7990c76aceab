"""A running service, by the address of its HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from toolkit.client.http_connection import json_object
from toolkit.client.http_dead_letters import HttpDeadLetters, signed
from toolkit.client.service_client import PAGE, Entries, Page
from toolkit.declaration.contract import Contract
from toolkit.errors import InvalidAnswerError, UnreachableError
from toolkit.operations.outcomes import BatchResult, SagaOutcome
from toolkit.operations.search import Found, FoundSaga, Search
from toolkit.operations.views import SagaView
from toolkit.persistence.audit_log import AuditEntry, Operator
from toolkit.persistence.contradictions import Contradiction
from toolkit.persistence.known_steps import UndeclaredStep
from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.protocol.invariants import Backlog
from toolkit.protocol.log_entry import DetailedEntry, LogEntry
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage
from toolkit.protocol.question_rows import AnswerOutcome, Question
from toolkit.protocol.rows import Row
from toolkit.runtime.pruner import Pruned
from toolkit.tracking.snapshot import Snapshot

R = TypeVar("R", bound=Row)


class HttpClient(HttpDeadLetters):
    """Reads and operates a running service over its HTTP API."""

    async def entries(
        self, saga_id: str | None = None, limit: int | None = None, *, saga_type: str | None = None
    ) -> Entries:
        """Request log entries; without a limit, all of one saga."""
        if saga_id is not None and limit is None:
            return self._rows(LogEntry, await self._read(_saga(saga_id), type=saga_type), "entries")
        content = await self._read("/log", saga=saga_id, type=saga_type, limit=limit)
        return self._rows(LogEntry, content, "entries")

    async def page(self, after: int) -> Page:
        """Request the next entries."""
        content = await self._read("/log", after=after, limit=PAGE)
        return self._rows(LogEntry, content, "entries"), content.get("next")

    async def since(self, after: int | None, limit: int) -> tuple[Entries, int]:
        """Request the next entries, or the newest."""
        content = await self._read("/log", after=after, limit=limit)
        if "last" not in content:
            raise UnreachableError(f"{self.address} does not return where its log ends: is it an older version?")
        return self._rows(LogEntry, content, "entries"), int(content["last"])

    async def backlog(self) -> Backlog:
        """Request the backlog."""
        content = await self._read("/backlog")
        pruned = content.get("pruned_until")
        return Backlog(
            self.service,
            outbox=content.get("outbox"),
            dead_letters=content.get("dead_letters"),
            pruned_until=datetime.fromisoformat(pruned) if pruned else None,
        )

    async def search(self, which: Search, *, limit: int = 100, cursor: str | None = None) -> Found:
        """Request a page of sagas."""
        age = which.older_than.total_seconds() if which.older_than is not None else None
        query = asdict(which) | {"older_than": age, "limit": limit, "cursor": cursor}
        content = await self._read("/sagas", **query)
        return self._rows(FoundSaga, content, "sagas"), content.get("next")

    async def saga(self, saga_id: str, saga_type: str | None = None) -> SagaView:
        """Request all of one saga."""
        content = await self._read(_saga(saga_id), type=saga_type)
        return SagaView(
            entries=self._rows(DetailedEntry, content, "entries"),
            outbox=self._rows(UnsentMessage, content, "outbox"),
            dead_letters=self._rows(DeadLetterSummary, content, "dead_letters"),
            overdue=self._rows(OverdueStep, content, "overdue"),
        )

    async def replay(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Request a replay of a saga."""
        return await self._operate(saga_id, "replay", by, saga_type)

    async def nudge(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Request a nudge."""
        return await self._operate(saga_id, "nudge", by, saga_type)

    async def abort(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Request an abort."""
        return await self._operate(saga_id, "abort", by, saga_type)

    async def questions(self, *, limit: int) -> list[Question]:
        """Request the open questions."""
        return self._rows(Question, await self._read("/questions", limit=limit), "questions")

    async def answer(
        self, saga_id: str, event: str, fields: Mapping[str, Any], by: Operator, saga_type: str | None = None
    ) -> AnswerOutcome | None:
        """Request an answer."""
        body = signed(by) | {"fields": dict(fields)} | ({} if saga_type is None else {"type": saga_type})
        content = await self._request("POST", f"{_saga(saga_id)}/answers/{quote(event, safe='')}", json=body)
        if "answers" in content:  # the service knows no such answer; without it, no such saga
            raise InvalidAnswerError(str(content.get("error")))
        return self._row(AnswerOutcome, content["answer"]) if "answer" in content else None

    async def prune(self, older_than: timedelta, by: Operator) -> Pruned:
        """Have one batch pruned."""
        content = await self._request("POST", "/prune", json=signed(by) | {"older_than": older_than.total_seconds()})
        return Pruned(**{name: content[name] for name in ("sagas", "dead_letters", "audit", "is_all")})

    async def audit(self, *, limit: int) -> list[AuditEntry]:
        """Request the audit."""
        return await self._request_rows(AuditEntry, "/audit", "audit", limit=limit)

    async def overdue(self, *, limit: int) -> list[OverdueStep]:
        """Request the overdue steps."""
        return await self._request_rows(OverdueStep, "/overdue", "overdue", limit=limit)

    async def contradictions(self, *, limit: int) -> list[Contradiction]:
        """Request the contradictions."""
        return await self._request_rows(Contradiction, "/contradictions", "contradictions", limit=limit)

    async def undeclared_steps(self) -> list[UndeclaredStep]:
        """Request the undeclared steps."""
        return await self._request_rows(UndeclaredStep, "/undeclared-steps", "undeclared_steps")

    async def outbox(self, *, limit: int) -> list[UnsentMessage]:
        """Request the outbox."""
        return self._rows(UnsentMessage, await self._read("/outbox", limit=limit), "outbox")

    async def snapshot(self) -> Snapshot:
        """Request the statistics."""
        try:
            return Snapshot.model_validate(await self._read("/stats"))
        except ValidationError as error:
            raise UnreachableError(
                f"{self.address} returns no statistics that can be read: is it an older version?"
            ) from error

    async def ready(self) -> dict[str, bool]:
        """Request the readiness; the answer has no name, so only other requests show that this service gave it."""
        response = await self._response("GET", "/readyz")
        return {part: is_ready is True for part, is_ready in json_object(response).items()}

    async def contract(self) -> Contract:
        """Request the contract."""
        try:
            return Contract.model_validate(await self._read("/contract"))
        except ValidationError as error:
            raise UnreachableError(
                f"{self.address} returns no contract that can be read: is it an older version?"
            ) from error

    async def _operate(self, saga_id: str, verb: str, by: Operator, saga_type: str | None) -> BatchResult[SagaOutcome]:
        of_type = {} if saga_type is None else {"type": saga_type}
        return await self._batch(SagaOutcome, f"{_saga(saga_id)}/{verb}", signed(by) | of_type)

    async def _request_rows(self, kind: type[R], path: str, name: str, **query: Any) -> list[R]:
        """Request rows with the operator's token."""
        return self._rows(kind, await self._request("GET", path, params=query), name)


def _saga(saga_id: str) -> str:
    return f"/sagas/{quote(saga_id, safe='')}"
