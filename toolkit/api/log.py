"""The saga log, the audit and the backlog."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.query_parameters import AFTER, LIMIT, TEXT, Parameter, limit_of, row_of, text, text_of
from toolkit.api.schemas import Audit, LogPage, Remaining
from toolkit.declaration.events import is_saga_id
from toolkit.persistence import audit_log, dead_letter_queries, outbox, pruning_watermark, saga_log_queries
from toolkit.persistence.dead_letters import Selection

#: An id that no saga can have is not an error: the list is empty.
_SAGA = Parameter("saga", "Only the entries of this saga.", {"type": "string"})
_TYPE = Parameter("type", "With `saga`: only the entries of the saga of this type.", TEXT)
_CURSOR = text("cursor", "The `next` of the previous page.")


def log_endpoints(context: ApiContext) -> list[Endpoint]:
    """Return the endpoints."""
    log = Log(context)
    return [
        Endpoint(
            path="/log",
            serve=log.log,
            answer=LogPage,
            parameters=(LIMIT, AFTER, _SAGA, _TYPE),
        ),
        Endpoint(path="/audit", serve=log.audit, answer=Audit, parameters=(LIMIT, _CURSOR), shows_messages=True),
        Endpoint(path="/backlog", serve=log.backlog, answer=Remaining),
    ]


class Log:
    """Reads the log and the tables beside it."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def log(self, request: Request) -> Response:
        """Return the newest entries, in the order of their rows; `last` is the row of the last one.

        With `?after=` the entries after that row of the table; `next` is the row to continue after, null at the end.
        """
        limit, after, saga_id = limit_of(request), row_of(request, "after"), request.query_params.get("saga")
        saga_type = text_of(request, "type") or None
        if saga_id is not None and not is_saga_id(saga_id):
            nothing = {} if after is None else {"next": None, "last": after}
            return self._context.answer(entries=[], **nothing)  # such an id may have a NUL, which PostgreSQL rejects
        if after is not None:
            return await self._page(after, limit, saga_id, saga_type)
        async with self._context.database.reading() as connection:
            if saga_id is not None:
                which: Any = {"saga_id": saga_id, "saga_type": saga_type, "limit": limit}
                return self._context.answer(entries=await saga_log_queries.entries(connection, **which))
            entries, last = await saga_log_queries.since(connection, after=None, limit=limit)
        return self._context.answer(entries=entries, last=last)

    async def audit(self, request: Request) -> Response:
        """List operators' changes with actor, time and reason, the newest first."""
        limit, before = limit_of(request), text_of(request, "cursor") or None
        async with self._context.database.reading() as connection:
            rows = await audit_log.listed(connection, limit=limit, before=before)
        return self._context.answer(audit=rows, next=rows[-1].id if len(rows) == limit else None)

    async def backlog(self, _: Request) -> Response:
        """Count the outbox's rows and the dead letters, and return the time up to which ended sagas are pruned."""
        async with self._context.database.reading() as connection:
            return self._context.answer(
                outbox=await outbox.count(connection),
                dead_letters=await dead_letter_queries.count(connection, Selection()),
                pruned_until=await pruning_watermark.reached(connection),
            )

    async def _page(self, after: int, limit: int, saga_id: str | None, saga_type: str | None) -> Response:
        which: Any = {"after": after, "limit": limit, "saga_id": saga_id, "saga_type": saga_type}
        async with self._context.database.reading() as connection:
            entries, last = await saga_log_queries.since(connection, **which)
        return self._context.answer(entries=entries, next=last if len(entries) == limit else None, last=last)
