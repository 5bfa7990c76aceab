"""Dead letters: lists, groups and single ones; and, with the token, redrive and drop."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.query_parameters import LIMIT, TEXT, Parameter, limit_of, moment_of, printable, text, text_of
from toolkit.api.request_bodies import DeadLetterBody, body_of
from toolkit.api.schemas import DeadLetterBatch, DeadLetterGroups, DeadLetterList, OneDeadLetter
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations.views import dead_letter_list, groups, whole_dead_letter
from toolkit.persistence import dead_letter_queries
from toolkit.persistence.dead_letters import Selection

_SELECTION = (
    Parameter("id", "Dead letters with these ids.", {"type": "array", "items": TEXT}, is_list=True),
    text("reason", "Dead letters with this reason."),
    text("step", "Dead letters of this step."),
    text("saga", "Dead letters of this saga."),
    text("type", "Dead letters of sagas of this type."),
    Parameter(
        "before",
        "Dead letters whose last failure was at that time, or earlier.",
        {"type": "string", "format": "date-time"},
    ),
    text("up_to", "No dead letter newer than the one with this id."),
    LIMIT,
)

_POSTED: dict[str, Any] = {"answer": DeadLetterBatch, "body": DeadLetterBody, "may_be_ambiguous": True}


def dead_letter_endpoints(context: ApiContext) -> list[Endpoint]:
    """Return the endpoints."""
    dead = DeadLetters(context)
    return [
        Endpoint(path="/dead-letters", serve=dead.dead_letters, answer=DeadLetterList, parameters=_SELECTION),
        Endpoint(path="/dead-letters/groups", serve=dead.groups, answer=DeadLetterGroups),
        Endpoint(path="/dead-letters/redrive", serve=dead.redrive, **_POSTED),
        Endpoint(path="/dead-letters/drop", serve=dead.drop, **_POSTED),
        Endpoint(
            path="/dead-letters/{id}", serve=dead.dead_letter, answer=OneDeadLetter, shows_messages=True, may_miss=True
        ),
    ]


class DeadLetters:
    """Reads, redrives and drops dead letters."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def dead_letters(self, request: Request) -> Response:
        """List dead letters, the newest first, without their messages; `total` counts all of them."""
        which, limit = _selection(request), limit_of(request)
        async with self._context.database.reading() as connection:
            rows = await dead_letter_list(connection, which, self._context.contract.events, limit=limit)
            total = await dead_letter_queries.count(connection, which)
        return self._context.answer(dead_letters=rows, total=total)

    async def groups(self, _: Request) -> Response:
        """Group dead letters by reason and step, the largest group first."""
        async with self._context.database.reading() as connection:
            return self._context.answer(groups=await groups(connection, self._context.contract.events))

    async def dead_letter(self, request: Request) -> Response:
        """Return one dead letter with its message."""
        dead_letter_id = printable(request.path_params["id"], "id")
        async with self._context.database.reading() as connection:
            found = await whole_dead_letter(connection, dead_letter_id, self._context.contract.events)
        if found is None:
            return self._context.unknown("has no dead letter", dead_letter_id)
        return self._context.answer(dead_letter=found)

    async def redrive(self, request: Request) -> Response:
        """Redrive one batch of the named dead letters; repeat with the response's `after` for the next batch."""
        body = await body_of(request, DeadLetterBody)
        return await self._context.batch(
            dead_letter_operations.redrive(
                self._context.database,
                body.selection,
                body.operator,
                queue=self._context.queue,
                now=self._context.now(),
                after=body.after,
                dry_run=body.dry_run,
            )
        )

    async def drop(self, request: Request) -> Response:
        """Drop one batch of the named dead letters; repeat with the response's `after` for the next batch."""
        body = await body_of(request, DeadLetterBody)
        return await self._context.batch(
            dead_letter_operations.drop(
                self._context.database,
                body.selection,
                body.operator,
                now=self._context.now(),
                after=body.after,
                dry_run=body.dry_run,
            )
        )


def _selection(request: Request) -> Selection:
    return Selection(
        ids=tuple(printable(each, "id") for each in request.query_params.getlist("id")),
        reason=text_of(request, "reason"),
        step=text_of(request, "step"),
        saga_id=text_of(request, "saga"),
        saga_type=text_of(request, "type"),
        before=moment_of(request, "before"),
        up_to=text_of(request, "up_to"),
    )
