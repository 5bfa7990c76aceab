"""What an operator reads and does at one service, over HTTP or in its database.

A service that can't be reached raises UnreachableError; it never counts as "nothing was done".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from toolkit.declaration.contract import Contract
from toolkit.operations.outcomes import BatchResult, DeadLetterOutcome, SagaOutcome
from toolkit.operations.search import Found, Search
from toolkit.operations.views import SagaView
from toolkit.persistence.audit_log import AuditEntry, Operator
from toolkit.persistence.contradictions import Contradiction
from toolkit.persistence.dead_letters import Selection
from toolkit.persistence.known_steps import UndeclaredStep
from toolkit.protocol.dead_letter_rows import DeadLetterGroup, DeadLetterSummary, WholeDeadLetter
from toolkit.protocol.invariants import Backlog
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage
from toolkit.protocol.question_rows import AnswerOutcome, Question
from toolkit.runtime.pruner import Pruned
from toolkit.tracking.snapshot import Snapshot

Entries = list[LogEntry]
#: Entries, and the row behind which the next ones begin; None where these were the last.
Page = tuple[Entries, int | None]

#: How many entries are read at once: as many as a service's API returns.
PAGE = 1_000


class LogReader(Protocol):
    """Reads one service's saga log; every method raises UnreachableError where it can't be read."""

    @property
    def service(self) -> str:
        """The service's name."""
        ...

    async def entries(
        self, saga_id: str | None = None, limit: int | None = None, *, saga_type: str | None = None
    ) -> Entries:
        """Return log entries, the oldest first, of all sagas or of one; with a limit, the newest so many."""
        ...

    async def page(self, after: int) -> Page:
        """Return a page of the log entries behind that row; 0 stands before the first."""
        ...

    async def since(self, after: int | None, limit: int) -> tuple[Entries, int]:
        """Return the entries behind that row, or the newest ones, and the row of the last."""
        ...

    async def backlog(self) -> Backlog:
        """Return the counts of what lies in the service beside its log."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class ServiceClient(LogReader, Protocol):
    """Reads and operates one service; every method raises UnreachableError where the service can't be reached."""

    async def dead_letters(self, which: Selection, *, limit: int) -> list[DeadLetterSummary]:
        """Return dead letters without their messages, the newest first."""
        ...

    async def dead_letter(self, dead_letter_id: str) -> WholeDeadLetter | None:
        """Return one dead letter with its message, or None where there is none with this id."""
        ...

    async def count(self, which: Selection) -> int:
        """Return how many dead letters are selected."""
        ...

    async def groups(self) -> list[DeadLetterGroup]:
        """Return the dead letters in groups, by reason and step, the largest first, each with its newest error."""
        ...

    async def redrive(
        self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False
    ) -> BatchResult[DeadLetterOutcome]:
        """Redrive one batch of the selected dead letters."""
        ...

    async def drop(
        self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False
    ) -> BatchResult[DeadLetterOutcome]:
        """Drop one batch of the selected dead letters."""
        ...

    async def search(self, which: Search, *, limit: int = 100, cursor: str | None = None) -> Found:
        """Return sagas, the latest moved first, and the cursor of the next page; None where there is none."""
        ...

    async def saga(self, saga_id: str, saga_type: str | None = None) -> SagaView:
        """Return all that the service knows of a saga, sensitive fields redacted; empty where it does not know it.

        Raises:
            AmbiguousSagaError: no type is named, and sagas of several types have this id.
        """
        ...

    async def replay(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Emit again what the steps of a saga emitted last; no rows where the service does not know the saga."""
        ...

    async def nudge(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Emit the last event of a running saga again; no rows where the service does not know the saga."""
        ...

    async def abort(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult[SagaOutcome]:
        """Ask all services to abort a running saga; no rows where the service does not know the saga."""
        ...

    async def questions(self, *, limit: int) -> list[Question]:
        """Return the steps that wait for an answer, the longest waiting first."""
        ...

    async def answer(
        self, saga_id: str, event: str, fields: Mapping[str, Any], by: Operator, saga_type: str | None = None
    ) -> AnswerOutcome | None:
        """Answer a step that waits, by the event of this name; None where the service does not know the saga.

        Raises:
            InvalidAnswerError: no step takes such an answer, or its fields are wrong.
            AmbiguousSagaError: no type is named, and sagas of several types have this id.
        """
        ...

    async def prune(self, older_than: timedelta, by: Operator) -> Pruned:
        """Prune one batch of what is older."""
        ...

    async def audit(self, *, limit: int) -> list[AuditEntry]:
        """Return the operators' changes, the newest first."""
        ...

    async def overdue(self, *, limit: int) -> list[OverdueStep]:
        """Return overdue steps, the longest waiting first."""
        ...

    async def contradictions(self, *, limit: int) -> list[Contradiction]:
        """Return steps whose status contradicts the end of their saga, the newest first."""
        ...

    async def undeclared_steps(self) -> list[UndeclaredStep]:
        """Return the steps that the log holds and the service does not declare; none without its declarations."""
        ...

    async def outbox(self, *, limit: int) -> list[UnsentMessage]:
        """Return the outbox, in the order in which its rows were added."""
        ...

    async def snapshot(self) -> Snapshot:
        """Return the service's statistics as they are now."""
        ...

    async def ready(self) -> dict[str, bool]:
        """Return whether broker, database and relay work; empty for a database, which has none of them."""
        ...

    async def contract(self) -> Contract:
        """Return which events the service consumes and publishes."""
        ...
