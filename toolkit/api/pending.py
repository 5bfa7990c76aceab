"""Overdue steps, contradictions, undeclared steps, the outbox, and pruning."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.query_parameters import LIMIT, limit_of, text, text_of
from toolkit.api.request_bodies import PruneBody, body_of
from toolkit.api.schemas import Contradictions, Outbox, OverdueSteps, Pruned, UndeclaredSteps
from toolkit.persistence import contradictions, known_steps, outbox, overdue_steps
from toolkit.runtime import pruner


def waiting_endpoints(context: ApiContext) -> list[Endpoint]:
    """Return the endpoints."""
    waiting = Waiting(context)
    return [
        Endpoint(path="/overdue", serve=waiting.overdue, answer=OverdueSteps, parameters=(LIMIT,)),
        Endpoint(path="/contradictions", serve=waiting.contradictions, answer=Contradictions, parameters=(LIMIT,)),
        Endpoint(path="/undeclared-steps", serve=waiting.undeclared_steps, answer=UndeclaredSteps),
        Endpoint(
            path="/outbox",
            serve=waiting.outbox,
            answer=Outbox,
            parameters=(LIMIT, text("cursor", "The `next` of the previous page.")),
        ),
        Endpoint(path="/prune", serve=waiting.prune, answer=Pruned, body=PruneBody),
    ]


class Waiting:
    """Lists pending work, and prunes ended sagas."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def overdue(self, request: Request) -> Response:
        """List overdue steps, the longest overdue first."""
        async with self._context.database.reading() as connection:
            steps = await overdue_steps.listed(connection, limit=limit_of(request))
        return self._context.answer(overdue=steps)

    async def contradictions(self, request: Request) -> Response:
        """List steps whose state contradicts their saga's end, the newest first."""
        async with self._context.database.reading() as connection:
            rows = await contradictions.listed(connection, limit=limit_of(request))
        return self._context.answer(contradictions=rows)

    async def undeclared_steps(self, _: Request) -> Response:
        """List steps in the log that the service does not declare, for example under a former name."""
        async with self._context.database.reading() as connection:
            steps = await known_steps.former(connection, self._context.contract)
        return self._context.answer(undeclared_steps=steps)

    async def outbox(self, request: Request) -> Response:
        """List unsent messages in the order of the outbox; `total` counts all, `oldest_at` is the oldest's time."""
        limit, after = limit_of(request), text_of(request, "cursor") or ""
        async with self._context.database.reading() as connection:
            rows = await outbox.listed(connection, limit=limit, after=after)
            total, oldest_at = await outbox.backlog(connection)
        following = rows[-1].id if len(rows) == limit else None
        return self._context.answer(outbox=rows, total=total, oldest_at=oldest_at, next=following)

    async def prune(self, request: Request) -> Response:
        """Prune one batch of old sagas and dead letters; `is_all` is true when none is left."""
        body = await body_of(request, PruneBody)
        pruned = await self._context.uncut(
            pruner.prune(self._context.database, older_than=body.older_than, now=self._context.now(), by=body.operator)
        )
        return self._context.answer(**asdict(pruned))
