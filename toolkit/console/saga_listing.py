"""Sagas as all services together see them: by an id, or those of a kind, page by page.

Each service lists its sagas, the latest moved first; they are merged here. A saga is listed once, where it moved last:
what was on an earlier page already, as another service told it, is left out.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from toolkit.client.service_client import Rows, ServiceClient
from toolkit.console.service_cache import Services
from toolkit.declaration.events import SagaState, is_saga_id
from toolkit.operations.search import Search
from toolkit.persistence.dead_letters import Selection
from toolkit.persistence.saga_log import SagaKey

#: How many sagas a page has.
PAGE = 25
#: How often a service is asked for more, where what it told was on an earlier page already.
_TURNS = 6
#: How many sagas' other sides are asked for at once.
_AT_ONCE = 12
_LONGEST = 200

#: Which word on a saga's state outweighs which: an end that one service knows of is the end.
_OUTWEIGH = (SagaState.STARTED, SagaState.PENDING, SagaState.COMPENSATING, SagaState.FAILED, SagaState.COMPLETED)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: behind a saga, by when it moved, its id and type, and in each service behind its cursor."""

    behind: tuple[datetime, str, str] | None = None
    cursors: Mapping[str, str | None] = field(default_factory=dict)

    def written(self) -> str:
        """Return the place as part of an address."""
        behind = (self.behind[0].isoformat(), *self.behind[1:]) if self.behind else None
        facts = {"behind": behind, "of": dict(self.cursors)}
        return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Place:
        """Return the place that an address names.

        Raises:
            ValueError: it names none.
        """
        facts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        cursors = {str(name): None if value is None else str(value) for name, value in dict(facts["of"]).items()}
        if facts["behind"] is None:
            return cls(None, cursors)
        at, saga_id, saga_type = facts["behind"]
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError("it names no zone")
        return cls((moment, str(saga_id), str(saga_type)), cursors)

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a saga stands behind this place."""
        return self.behind is None or _rank(row) < self.behind


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of sagas, where the next one begins, and what could not be asked."""

    rows: Rows
    following: Place | None
    unreachable: Mapping[str, str]


class Listing:
    """Finds and lists sagas."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def find(self, q: str) -> Listed:
        """Return the sagas of that id: a saga's, or an event's."""
        which = Search(q=q[:_LONGEST])
        answers = await self._services.ask(("find", q), lambda each: each.search(which, limit=PAGE))
        rows = [row for found, _ in answers.by_service.values() for row in found]
        return Listed(_merged(rows), None, answers.unreachable)

    async def has_dead_letters(self, saga_id: str) -> bool:
        """Whether messages of this saga lie among the dead letters, which may be all that there is of it."""
        if not is_saga_id(saga_id):
            return False
        answers = await self._services.ask(
            ("letters of", saga_id), lambda each: each.dead_letters(Selection(saga_id=saga_id), limit=1)
        )
        return any(answers.by_service.values())

    async def page(self, which: Search, place: Place) -> Listed:
        """Return one page of the sagas that are meant, behind that place."""
        answers = await self._services.ask(
            ("list", which, place.written()),
            lambda each: _behind(each, which, place),
            of=[name for name in self._services.names if place.cursors.get(name, "") is not None],
        )
        rows = _merged(row for found in answers.by_service.values() for row in found.rows)
        sure = max((found.sure_until for found in answers.by_service.values() if found.sure_until), default=None)
        page = [row for row in rows if sure is None or row["at"] > sure][:PAGE]
        whole = await self._as_all_see(page, answers.unreachable)
        shown = [row for row in whole if _is_meant(row, which) and place.holds(row)]
        is_more = len(page) < len(rows) or any(found.cursor is not None for found in answers.by_service.values())
        following = None
        if is_more and page:
            end = page[-1]["at"]
            cursors = {name: found.cursor_at(end) for name, found in answers.by_service.items()}
            following = Place(_rank(page[-1]), cursors)
        return Listed(shown, following, answers.unreachable)

    async def _as_all_see(self, rows: Rows, unreachable: Mapping[str, str]) -> Rows:
        """Return these sagas with what the services that did not list them here know of them."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def whole(row: dict[str, Any]) -> dict[str, Any]:
            others = [name for name in self._services.names if name not in row["told_by"] and name not in unreachable]
            which = Search(q=row["saga_id"], type=row["saga_type"])
            async with room:
                told = await self._services.ask(("find", which), lambda each: each.search(which, limit=1), of=others)
            (merged,) = _merged([row, *(each for found, _ in told.by_service.values() for each in found)])
            return merged

        return await asyncio.gather(*(whole(row) for row in rows))


@dataclass(frozen=True, slots=True)
class _Found:
    """What one service listed: rows, the cursors behind which each page of them began, and where the next one does."""

    rows: Rows
    begun: list[tuple[datetime, str]]
    cursor: str | None

    @property
    def sure_until(self) -> datetime | None:
        """Of what moved after that all is known; None where that is all there is."""
        return self.rows[-1]["at"] if self.cursor is not None and self.rows else None

    def cursor_at(self, end: datetime) -> str | None:
        """Return the cursor of the page in which what moved then, or before, begins; None where nothing is left."""
        if not any(row["at"] <= end for row in self.rows):
            return self.cursor
        return next((cursor for at, cursor in reversed(self.begun) if at > end), self.begun[0][1])


async def _behind(client: ServiceClient, which: Search, place: Place) -> _Found:
    """Ask a service until it has told a page of what moved before that place, or all that there is."""
    cursor = place.cursors.get(client.service) or None
    rows: Rows = []
    begun: list[tuple[datetime, str]] = []
    for _ in range(_TURNS):
        page, following = await client.search(which, limit=PAGE * 2, cursor=cursor)
        if page:
            begun.append((page[0]["at"], cursor or ""))
        rows += [row | {"told_by": {client.service}} for row in page if place.holds(row)]
        cursor = following
        # Several sagas move at one instant, as a batch: how many of them there are is known once an older one came.
        if cursor is None or sum(row["at"] > rows[-1]["at"] for row in rows) >= PAGE:
            break
    return _Found(rows, begun, cursor)


def _merged(rows: Iterable[dict[str, Any]]) -> Rows:
    """Return each saga once, the latest moved first: an end that one service knows of is the end."""
    sagas: dict[SagaKey, dict[str, Any]] = {}
    for row in rows:
        saga = row["saga_type"], row["saga_id"]
        known = sagas.get(saga)
        sagas[saga] = _joined(known, row) if known else row
    return sorted(sagas.values(), key=_rank, reverse=True)


def _rank(row: Mapping[str, Any]) -> tuple[datetime, str, str]:
    return row["at"], row["saga_id"], row["saga_type"]


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    latest = max(one, other, key=lambda row: (_OUTWEIGH.index(SagaState(row["state"])), row["at"]))
    moved = max(one, other, key=_moved_at)
    return latest | {
        "step": moved["step"],
        "moved_at": _moved_at(moved),
        "started_at": min(one["started_at"], other["started_at"]),
        "at": max(one["at"], other["at"]),
        "attention": sorted({*one["attention"], *other["attention"]}),
        "told_by": one.get("told_by", set()) | other.get("told_by", set()),
    }


def _moved_at(row: Mapping[str, Any]) -> datetime:
    moment: datetime = row.get("moved_at") or row["at"]  # an older service does not tell
    return moment


def _is_meant(row: dict[str, Any], which: Search) -> bool:
    """Whether a saga is meant as all services together see it."""
    return (which.state is None or SagaState(row["state"]) is which.state) and which.step in (None, row["step"])
