"""The dead letters of a running service, over its HTTP API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from toolkit.client.http_connection import HttpConnection
from toolkit.operations.outcomes import BatchResult, DeadLetterOutcome
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection
from toolkit.protocol.dead_letter_rows import DeadLetterGroup, DeadLetterSummary, WholeDeadLetter


class HttpDeadLetters(HttpConnection):
    """Reads, redrives and drops dead letters."""

    async def dead_letters(self, which: Selection, *, limit: int) -> list[DeadLetterSummary]:
        """Request dead letters."""
        content = await self._request("GET", "/dead-letters", params=_query(which) | {"limit": limit})
        return self._rows(DeadLetterSummary, content, "dead_letters")

    async def dead_letter(self, dead_letter_id: str) -> WholeDeadLetter | None:
        """Request one dead letter."""
        content = await self._request("GET", f"/dead-letters/{quote(dead_letter_id, safe='')}")
        return self._row(WholeDeadLetter, content["dead_letter"]) if "dead_letter" in content else None

    async def count(self, which: Selection) -> int:
        """Request the number of selected dead letters."""
        content = await self._request("GET", "/dead-letters", params=_query(which) | {"limit": 1})
        return int(content.get("total", 0))

    async def groups(self) -> list[DeadLetterGroup]:
        """Request the dead letters in groups."""
        return self._rows(DeadLetterGroup, await self._read("/dead-letters/groups"), "groups")

    async def redrive(
        self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False
    ) -> BatchResult[DeadLetterOutcome]:
        """Have one batch redriven."""
        body = _body(which, by) | {"after": after, "dry_run": dry_run}
        return await self._batch(DeadLetterOutcome, "/dead-letters/redrive", body)

    async def drop(
        self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False
    ) -> BatchResult[DeadLetterOutcome]:
        """Have one batch dropped."""
        body = _body(which, by) | {"after": after, "dry_run": dry_run}
        return await self._batch(DeadLetterOutcome, "/dead-letters/drop", body)


def signed(by: Operator) -> dict[str, Any]:
    """Return the part of a request's body that names the operator and the reason."""
    return {"reason": by.reason, "actor": by.name}


def _query(which: Selection) -> dict[str, Any]:
    before = which.before.isoformat() if which.before else None
    fields = {"reason": which.reason, "step": which.step, "saga": which.saga_id, "type": which.saga_type}
    fields |= {"before": before, "up_to": which.up_to}
    return {name: value for name, value in (fields | {"id": which.ids}).items() if value}


def _body(which: Selection, by: Operator) -> dict[str, Any]:
    query = _query(which)
    names = {"id": "ids", "reason": "reason_is"}
    narrowed = {names.get(name, name): value for name, value in query.items()}
    return signed(by) | narrowed | {"all": not query.keys() - {"up_to"}}
