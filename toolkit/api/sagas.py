"""One service's sagas: search, single ones, and the operations replay, nudge and abort."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.query_parameters import (
    ATTENTION,
    LIMIT,
    ROW_CURSOR,
    SPAN,
    STATE,
    TYPE,
    Parameter,
    choice_of,
    limit_of,
    row_of,
    span_of,
    text,
    text_of,
)
from toolkit.api.request_bodies import SagaBody, body_of
from toolkit.api.schemas import FoundSagas, SagaBatch, WholeSaga
from toolkit.configuration.settings import LONGEST_WAIT
from toolkit.declaration.events import SagaState, is_saga_id
from toolkit.operations import sagas as saga_operations
from toolkit.operations.attention import Attention
from toolkit.operations.outcomes import BatchResult, SagaOutcome
from toolkit.operations.search import Search, search
from toolkit.operations.views import SagaView, view

_SEARCH = (
    text("q", "The id of a saga, or of an event that it consumed or emitted here."),
    STATE,
    text("step", "Sagas whose last moved step is this one."),
    ATTENTION,
    Parameter("older_than", "Sagas without a log entry for so long: `10min`.", SPAN),
    text("type", "Sagas of this type."),
    LIMIT,
    ROW_CURSOR,
)
_OPERATED: dict[str, Any] = {"answer": SagaBatch, "body": SagaBody, "may_miss": True, "may_be_ambiguous": True}


def saga_endpoints(context: ApiContext) -> list[Endpoint]:
    """Return the endpoints; paths with a verb after the saga's id are matched first."""
    sagas = Sagas(context)
    return [
        Endpoint(path="/sagas", serve=sagas.sagas, answer=FoundSagas, parameters=_SEARCH),
        Endpoint(path="/sagas/{id:path}/replay", serve=sagas.replay, **_OPERATED),
        Endpoint(path="/sagas/{id:path}/nudge", serve=sagas.nudge, **_OPERATED),
        Endpoint(path="/sagas/{id:path}/abort", serve=sagas.abort, **_OPERATED),
        Endpoint(
            path="/sagas/{id:path}",
            serve=sagas.saga,
            answer=WholeSaga,
            parameters=(TYPE,),
            may_miss=True,
            may_be_ambiguous=True,
        ),
    ]


class Sagas:
    """Reads and operates sagas."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def sagas(self, request: Request) -> Response:
        """Search the sagas of this service, the latest moved first, page by page."""
        which, limit, cursor = _search(request), limit_of(request), row_of(request, "cursor")
        async with self._context.database.reading() as connection:
            found, following = await search(connection, which, now=self._context.now(), limit=limit, cursor=cursor)
        return self._context.answer(sagas=found, next=following)

    async def saga(self, request: Request) -> Response:
        """Return one saga at this service: its log entries, the oldest first, its unsent messages and dead letters."""
        saga_id = request.path_params["id"]
        seen = await self._view(saga_id, text_of(request, "type") or None)
        if seen.is_empty:
            return self._context.unknown_saga(saga_id)
        return self._context.answer(saga_type=next(iter(seen.types), None), saga_id=saga_id, **asdict(seen))

    async def replay(self, request: Request) -> Response:
        """Emit again each step's last event of one saga, and its end if this service ended it."""
        return await self._operate(request, partial(saga_operations.replay, service=self._context.service))

    async def nudge(self, request: Request) -> Response:
        """Send this service's last events of an open saga again; the fence makes duplicates harmless."""
        return await self._operate(request, partial(saga_operations.nudge, service=self._context.service))

    async def abort(self, request: Request) -> Response:
        """Ask all services to refuse the steps of a saga that have not begun; refused when the saga has ended."""
        return await self._operate(request, saga_operations.abort)

    async def _operate(
        self, request: Request, operation: Callable[..., Coroutine[Any, Any, BatchResult[SagaOutcome]]]
    ) -> Response:
        body, saga_id = await body_of(request, SagaBody), request.path_params["id"]
        if not is_saga_id(saga_id):
            return self._context.unknown_saga(saga_id)
        facts: dict[str, Any] = {"saga_id": saga_id, "saga_type": body.type, "by": body.operator}
        batch = await self._context.uncut(operation(self._context.database, now=self._context.now(), **facts))
        return self._context.answer(rows=batch.rows) if batch.rows else self._context.unknown_saga(saga_id)

    async def _view(self, saga_id: str, saga_type: str | None) -> SagaView:
        if not is_saga_id(saga_id):
            return SagaView()  # no saga has such an id, and PostgreSQL rejects a NUL in it
        async with self._context.database.reading() as connection:
            return await view(connection, saga_id, self._context.contract.events, saga_type=saga_type)


def _search(request: Request) -> Search:
    return Search(
        q=text_of(request, "q") or None,
        state=choice_of(request, "state", SagaState),
        step=text_of(request, "step") or None,
        attention=choice_of(request, "attention", Attention),
        older_than=span_of(request, "older_than", longest=LONGEST_WAIT),
        type=text_of(request, "type") or None,
    )
