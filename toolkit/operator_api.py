"""The operator's part of one service's HTTP API: dead letters and overdue steps, and, with a token, what changes them.

Nothing is written, and no message is shown, without `Authorization: Bearer` and the service's SAGA_API_TOKEN. A write
that has begun is never cut off, whatever becomes of whoever asked for it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from functools import wraps
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit import dead_letters, operations, overdue, retention
from toolkit.api import Endpoint, QueryError, answered, error_answer, is_saga_id, json_answer, limit_of
from toolkit.audit import Operator
from toolkit.clock import Clock
from toolkit.database import Database
from toolkit.dead_letters import Selection
from toolkit.operations import Bite
from toolkit.service import Service
from toolkit.settings import LONGEST_RETENTION, SHORTEST_RETENTION, Duration

M = TypeVar("M", bound="Order")
T = TypeVar("T")

#: One line that any database can keep.
Word = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^\P{Cc}+$")]


def _in_utc(moment: datetime) -> datetime:
    """Return a time in UTC, as the databases keep it; at the calendar's edges it may lie outside."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("this is outside the calendar") from error


class Order(BaseModel):
    """What is asked for: who asks, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^\P{Cc}*[^\s\p{Cc}]\P{Cc}*$")]
    actor: Word = "api"

    @property
    def operator(self) -> Operator:
        """Who acts, and why."""
        return Operator(self.actor, self.reason)


class Letters(Order):
    """Which dead letters; `all` where nothing else is said, so that nobody means them all by leaving something out."""

    ids: tuple[Word, ...] = Field((), max_length=1_000)
    reason_is: Word | None = None
    step: Word | None = None
    saga: Word | None = None
    before: Annotated[AwareDatetime, AfterValidator(_in_utc)] | None = None
    all: bool = False
    up_to: Word | None = None
    after: Annotated[str, StringConstraints(max_length=64, pattern=r"^\P{Cc}*$")] = ""
    dry_run: bool = False

    @property
    def selection(self) -> Selection:
        """The letters that are meant.

        Raises:
            QueryError: none are named.
        """
        if not (self.ids or self.reason_is or self.step or self.saga or self.before or self.all):
            raise QueryError("say which letters: ids, reason_is, step, saga, before, or all")
        return Selection(
            ids=self.ids, reason=self.reason_is, step=self.step, saga_id=self.saga, before=self.before, up_to=self.up_to
        )


class Replay(Order):
    """A replay; a reason is welcome, and not needed for what changes nothing."""

    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^\P{Cc}*$")] = ""


class Prune(Order):
    """How old is old."""

    older_than: Annotated[Duration, Field(ge=SHORTEST_RETENTION, le=LONGEST_RETENTION)]


def operator_routes(
    service: Service, database: Database, *, queue: str, token: SecretStr | None, clock: Clock
) -> list[Route]:
    """Return the routes; without a token of the service's own, all that needs one is refused."""
    api = OperatorApi(service, database, queue=queue, clock=clock)

    def guarded(endpoint: Endpoint) -> Endpoint:
        return _guarded(answered(endpoint, within=None), token, service.name)

    def writing(path: str, endpoint: Endpoint) -> Route:
        return Route(path, guarded(endpoint), methods=["POST"])

    return [
        Route("/overdue", answered(api.overdue)),
        Route("/dead-letters", answered(api.letters)),
        writing("/dead-letters/redrive", api.redrive),
        writing("/dead-letters/drop", api.drop),
        Route("/dead-letters/{id}", guarded(api.letter)),
        writing("/sagas/{id:path}/replay", api.replay),
        writing("/prune", api.prune),
    ]


class OperatorApi:
    """The operator's endpoints of one service."""

    def __init__(self, service: Service, database: Database, *, queue: str, clock: Clock) -> None:
        self._service = service
        self._database = database
        self._queue = queue
        self._clock = clock
        self._under_way: set[asyncio.Task[Any]] = set()

    async def overdue(self, request: Request) -> Response:
        """List overdue steps, the longest waiting first."""
        async with self._database.reading() as connection:
            steps = await overdue.listed(connection, limit=limit_of(request))
        return self._answer(overdue=[asdict(step) for step in steps])

    async def letters(self, request: Request) -> Response:
        """List dead letters, the newest first, without their messages; and how many there are in all."""
        which, limit = _selection(request), limit_of(request)
        async with self._database.reading() as connection:
            rows = await dead_letters.listed(connection, which, limit=limit, whole=False)
            total = await dead_letters.count(connection, which)
        return self._answer(dead_letters=rows, total=total)

    async def letter(self, request: Request) -> Response:
        """Return one letter with its message."""
        which = Selection(ids=(_text(request.path_params["id"], "id"),))
        async with self._database.reading() as connection:
            rows = await dead_letters.listed(connection, which, limit=1)
        if not rows:
            return error_answer(
                404, f"{self._service.name} has no dead letter {which.ids[0]!r}", service=self._service.name
            )
        return self._answer(dead_letter=rows[0])

    async def redrive(self, request: Request) -> Response:
        """Redrive one bite of the letters that the order names; `after` in the answer is where the next one begins."""
        order = await _order(request, Letters)
        return await self._bite(
            operations.redrive(
                self._database,
                order.selection,
                order.operator,
                queue=self._queue,
                now=self._now(),
                after=order.after,
                dry_run=order.dry_run,
            )
        )

    async def drop(self, request: Request) -> Response:
        """Drop one bite of the letters that the order names."""
        order = await _order(request, Letters)
        return await self._bite(
            operations.drop(
                self._database,
                order.selection,
                order.operator,
                now=self._now(),
                after=order.after,
                dry_run=order.dry_run,
            )
        )

    async def replay(self, request: Request) -> Response:
        """Emit again what the steps of one saga emitted last."""
        order, saga_id = await _order(request, Replay), request.path_params["id"]
        if not is_saga_id(saga_id):
            return self._unknown(saga_id)
        bite = await self._uncut(
            operations.replay(self._database, self._service.emitted(), saga_id, order.operator, now=self._now())
        )
        return self._answer(rows=bite.rows) if bite.rows else self._unknown(saga_id)

    async def prune(self, request: Request) -> Response:
        """Prune one bite; `is_all` in the answer where nothing old is left."""
        order = await _order(request, Prune)
        pruned = await self._uncut(
            retention.prune(self._database, older_than=order.older_than, now=self._now(), by=order.operator)
        )
        return self._answer(**asdict(pruned))

    async def _bite(self, doing: Coroutine[Any, Any, Bite]) -> Response:
        bite = await self._uncut(doing)
        return self._answer(rows=bite.rows, after=bite.after)

    async def _uncut(self, doing: Coroutine[Any, Any, T]) -> T:
        """Await a write in a task of its own: one cancelled in a statement would leave SQLite's lock with nobody."""
        task = asyncio.create_task(doing)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    def _now(self) -> datetime:
        return self._clock.now()

    def _unknown(self, saga_id: str) -> Response:
        return error_answer(404, f"{self._service.name} knows no saga {saga_id!r}", service=self._service.name)

    def _answer(self, **content: Any) -> Response:
        return json_answer({"service": self._service.name} | content)


def _guarded(endpoint: Endpoint, token: SecretStr | None, service: str) -> Endpoint:
    """Let only those in who show the token."""

    @wraps(endpoint)
    async def guard(request: Request) -> Response:
        if token is None:
            text = f"this is switched off: start {service} with SAGA_API_TOKEN, and send that as Authorization: Bearer"
            return error_answer(403, text, service=service)
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(shown.strip().encode("latin-1"), token.get_secret_value().encode())
        if kind.lower() != "bearer" or not is_right:
            text = f"show the token of {service}: Authorization: Bearer and its SAGA_API_TOKEN"
            refused = error_answer(401, text, service=service)
            refused.headers["www-authenticate"] = "Bearer"
            return refused
        return await endpoint(request)

    return guard


async def _order(request: Request, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'the body'}: {fault['msg']}" for fault in error.errors())
        raise QueryError("; ".join(faults)) from error


def _selection(request: Request) -> Selection:
    query = request.query_params
    said = {name: _text(query[name], name) for name in ("reason", "step", "up_to") if name in query}
    return Selection(
        ids=tuple(_text(each, "id") for each in query.getlist("id")),
        reason=said.get("reason"),
        step=said.get("step"),
        saga_id=_text(query["saga"], "saga") if "saga" in query else None,
        before=_moment(query["before"]) if "before" in query else None,
        up_to=said.get("up_to"),
    )


def _text(value: str, name: str) -> str:
    if not value.isprintable():
        raise QueryError(f"{name}={value!r} is not allowed: take printable text")
    return value


def _moment(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("it names no zone")
        return _in_utc(moment)
    except ValueError as error:
        raise QueryError(f"before={value!r} is not allowed: take a time in ISO 8601 with its zone") from error
