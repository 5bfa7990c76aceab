"""Dead letters: listed, in groups, one by one; and, with the token, redriven and dropped."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import Site
from toolkit.api.endpoints import Endpoint
from toolkit.api.query_parameters import LIMIT, TEXT, Parameter, limit_of, moment_of, printable, text, text_of
from toolkit.api.request_bodies import Letters, order_of
from toolkit.api.schemas import LetterBite, LetterGroups, LetterList, OneLetter
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations.views import groups, letter, letters
from toolkit.persistence import dead_letters
from toolkit.persistence.dead_letters import Selection

_SELECTION = (
    Parameter("id", "These letters.", {"type": "array", "items": TEXT}, is_list=True),
    text("reason", "Letters that were given up for this reason."),
    text("step", "Letters of this step."),
    text("saga", "Letters of this saga."),
    text("type", "Letters of sagas of this type."),
    Parameter("before", "Letters given up last at that time, or earlier.", {"type": "string", "format": "date-time"}),
    text("up_to", "No letter newer than this one."),
    LIMIT,
)

_ORDERED: dict[str, Any] = {"answer": LetterBite, "order": Letters, "may_be_ambiguous": True}


def letter_endpoints(site: Site) -> list[Endpoint]:
    """Return the endpoints."""
    dead = DeadLetters(site)
    return [
        Endpoint(path="/dead-letters", serve=dead.letters, answer=LetterList, parameters=_SELECTION),
        Endpoint(path="/dead-letters/groups", serve=dead.groups, answer=LetterGroups),
        Endpoint(path="/dead-letters/redrive", serve=dead.redrive, **_ORDERED),
        Endpoint(path="/dead-letters/drop", serve=dead.drop, **_ORDERED),
        Endpoint(path="/dead-letters/{id}", serve=dead.letter, answer=OneLetter, shows_people=True, may_miss=True),
    ]


class DeadLetters:
    """Reads dead letters, and has them run again."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def letters(self, request: Request) -> Response:
        """List dead letters, the newest first, without their messages; and how many there are in all."""
        which, limit = _selection(request), limit_of(request)
        async with self._site.database.reading() as connection:
            rows = await letters(connection, which, self._site.contract.events, limit=limit)
            total = await dead_letters.count(connection, which)
        return self._site.answer(dead_letters=rows, total=total)

    async def groups(self, _: Request) -> Response:
        """Tell the dead letters in groups, by reason and step, the largest first."""
        async with self._site.database.reading() as connection:
            return self._site.answer(groups=await groups(connection, self._site.contract.events))

    async def letter(self, request: Request) -> Response:
        """Return one letter with its message."""
        letter_id = printable(request.path_params["id"], "id")
        async with self._site.database.reading() as connection:
            found = await letter(connection, letter_id, self._site.contract.events)
        if found is None:
            return self._site.unknown("has no dead letter", letter_id)
        return self._site.answer(dead_letter=found)

    async def redrive(self, request: Request) -> Response:
        """Redrive one bite of the letters that the order names; `after` in the answer is where the next one begins."""
        order = await order_of(request, Letters)
        return await self._site.bite(
            dead_letter_operations.redrive(
                self._site.database,
                order.selection,
                order.operator,
                queue=self._site.queue,
                now=self._site.now(),
                after=order.after,
                dry_run=order.dry_run,
            )
        )

    async def drop(self, request: Request) -> Response:
        """Drop one bite of the letters that the order names; `after` in the answer is where the next one begins."""
        order = await order_of(request, Letters)
        return await self._site.bite(
            dead_letter_operations.drop(
                self._site.database,
                order.selection,
                order.operator,
                now=self._site.now(),
                after=order.after,
                dry_run=order.dry_run,
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
