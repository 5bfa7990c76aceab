"""Sagas of all services: found by an id, or listed by filters, page by page.

Each service lists its sagas by their latest entry, the newest first; the lists are merged here. A saga is listed once,
at its latest entry in any service; a row that another service has put on an earlier page is left out.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from toolkit.client.fan_out import Responses
from toolkit.client.service_client import ServiceClient
from toolkit.console.saga_rows import SagaRow, merged
from toolkit.console.service_cache import ServiceCache
from toolkit.declaration.events import is_saga_id
from toolkit.operations.search import Found, Search
from toolkit.persistence.dead_letters import Selection

#: How many sagas a page has.
PAGE = 25
#: How many pages of one service are read for one page of the list.
_MOST_READS = 6
#: How many sagas are completed from other services at once.
_AT_ONCE = 12
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Place:
    """The start of a page: behind a saga (time of its latest entry, id, type), and each service's cursor."""

    behind: tuple[datetime, str, str] | None = None
    cursors: Mapping[str, str | None] = field(default_factory=dict)

    def written(self) -> str:
        """Return the place as a query parameter."""
        behind = (self.behind[0].isoformat(), *self.behind[1:]) if self.behind else None
        facts = {"behind": behind, "of": dict(self.cursors)}
        return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Place:
        """Return the place of a query parameter.

        Raises:
            ValueError: the parameter is no place.
        """
        facts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        cursors = {str(name): None if value is None else str(value) for name, value in dict(facts["of"]).items()}
        if facts["behind"] is None:
            return cls(None, cursors)
        at, saga_id, saga_type = facts["behind"]
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError("the time has no zone")
        return cls((moment, str(saga_id), str(saga_type)), cursors)

    def holds(self, row: SagaRow) -> bool:
        """Whether a saga comes after this place."""
        return self.behind is None or row.rank < self.behind


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of sagas, the place of the next one, and the unreachable services."""

    rows: list[SagaRow]
    following: Place | None
    unreachable: Mapping[str, str]


class Listing:
    """Finds and lists sagas."""

    def __init__(self, services: ServiceCache) -> None:
        self._services = services

    async def find(self, q: str) -> Listed:
        """Return the sagas that have the id, or an event with the id."""
        which = Search(q=q[:_LONGEST])
        answers = await self._services.query(("find", q), lambda each: each.search(which, limit=PAGE))
        return Listed(merged(_listed(answers)), None, answers.unreachable)

    async def has_dead_letters(self, saga_id: str) -> bool:
        """Whether a service has dead letters of this saga, which may be its only trace."""
        if not is_saga_id(saga_id):
            return False
        answers = await self._services.query(
            ("dead letters", saga_id), lambda each: each.dead_letters(Selection(saga_id=saga_id), limit=1)
        )
        return any(answers.by_service.values())

    async def page(self, which: Search, place: Place) -> Listed:
        """Return one page of the sagas that match, from that place on."""
        answers = await self._services.query(
            ("list", which, place.written()),
            lambda each: _behind(each, which, place),
            of=[name for name in self._services.names if place.cursors.get(name, "") is not None],
        )
        rows = merged(row for found in answers.by_service.values() for row in found.rows)
        since = max(
            (found.complete_since for found in answers.by_service.values() if found.complete_since), default=None
        )
        page = [row for row in rows if since is None or row.at > since][:PAGE]
        whole = await self._completed(page, answers.unreachable)
        shown = [row for row in whole if row.matches(which) and place.holds(row)]
        is_more = len(page) < len(rows) or any(found.cursor is not None for found in answers.by_service.values())
        following = None
        if is_more and page:
            end = page[-1].at
            cursors = {name: found.cursor_at(end) for name, found in answers.by_service.items()}
            following = Place(page[-1].rank, cursors)
        return Listed(shown, following, answers.unreachable)

    async def _completed(self, rows: list[SagaRow], unreachable: Mapping[str, str]) -> list[SagaRow]:
        """Return these sagas merged with their rows from the services that have not listed them here."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def whole(row: SagaRow) -> SagaRow:
            others = [name for name in self._services.names if name not in row.services and name not in unreachable]
            which = Search(q=row.saga_id, type=row.saga_type)
            async with room:
                answers = await self._services.query(
                    ("find", which), lambda each: each.search(which, limit=1), of=others
                )
            (complete,) = merged([row, *_listed(answers)])
            return complete

        return await asyncio.gather(*(whole(row) for row in rows))


@dataclass(frozen=True, slots=True)
class _Found:
    """The rows of one service, the cursor of each page of them by its first time, and the cursor of the next page."""

    rows: list[SagaRow]
    starts: list[tuple[datetime, str]]
    cursor: str | None

    @property
    def complete_since(self) -> datetime | None:
        """The time after which all rows are known; None where all rows are."""
        return self.rows[-1].at if self.cursor is not None and self.rows else None

    def cursor_at(self, end: datetime) -> str | None:
        """Return the cursor of the page that contains the rows of that time and before; None where none is left."""
        if not any(row.at <= end for row in self.rows):
            return self.cursor
        return next((cursor for at, cursor in reversed(self.starts) if at > end), self.starts[0][1])


async def _behind(client: ServiceClient, which: Search, place: Place) -> _Found:
    """Read a service's rows behind that place: at least a page, or all."""
    cursor = place.cursors.get(client.service) or None
    rows: list[SagaRow] = []
    starts: list[tuple[datetime, str]] = []
    for _ in range(_MOST_READS):
        found, following = await client.search(which, limit=PAGE * 2, cursor=cursor)
        page = [SagaRow.of(client.service, row) for row in found]
        if page:
            starts.append((page[0].at, cursor or ""))
        rows += [row for row in page if place.holds(row)]
        cursor = following
        # A batch gives several sagas the same time: they are complete once an older row follows.
        if cursor is None or sum(row.at > rows[-1].at for row in rows) >= PAGE:
            break
    return _Found(rows, starts, cursor)


def _listed(answers: Responses[Found]) -> Iterator[SagaRow]:
    for service, (rows, _) in answers.by_service.items():
        yield from (SagaRow.of(service, row) for row in rows)
