"""`/sagas/{id}`: one saga's timeline over all services; nudging and aborting it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.client.saga_report import merged
from toolkit.client.service_client import ServiceClient
from toolkit.console.forms import form, operator
from toolkit.console.guard import SessionKeys
from toolkit.console.saga_view import SagaDetails
from toolkit.console.service_cache import LIVE_MAX_WAIT, MAX_WAIT, NO_TEXT, ServiceCache, is_queryable
from toolkit.console.submissions import Line, Submissions
from toolkit.console.templating import Pages, saga_path
from toolkit.errors import AmbiguousSagaError, NotAllowedError, UnreachableError
from toolkit.json_output import as_json
from toolkit.operations.outcomes import BatchResult, SagaOutcome
from toolkit.persistence.audit_log import Operator
from toolkit.tracking.progress import progress


class SagaPage:
    """Shows, nudges and aborts one saga."""

    def __init__(
        self, services: ServiceCache, pages: Pages, keys: SessionKeys, submissions: Submissions, *, actor: str
    ) -> None:
        self._services = services
        self._pages = pages
        self._keys = keys
        self._submissions = submissions
        self._actor = actor

    async def show(self, request: Request) -> Response:
        """Show a saga; with `format=json`, as JSON."""
        saga_id = request.path_params["id"]
        if not saga_id:
            return RedirectResponse("/sagas", 303)
        if not is_queryable(saga_id):
            raise HTTPException(400, f"Invalid id: it {NO_TEXT}")
        is_live = request.query_params.get("part") == "live"
        is_json = request.query_params.get("format") == "json"
        try:
            details = await self.details_of(
                saga_id, request.query_params.get("type") or None, max_wait=LIVE_MAX_WAIT if is_live else MAX_WAIT
            )
        except AmbiguousSagaError as error:
            return self._choice(request, error, is_json=is_json)
        if is_json:
            return Response(
                as_json(details.as_dict(), indent=2),
                status_code=200 if details.is_known else 404,
                media_type="application/json",
            )
        return self._pages.page(
            request,
            "saga",
            saga_id=saga_id,
            details=details,
            submission=self._submissions.get(request.query_params.get("submission", "")),
            new_submission=self._submissions.new_name,
            open_action=request.query_params.get("do", ""),
        )

    def _choice(self, request: Request, error: AmbiguousSagaError, *, is_json: bool) -> Response:
        """Show a choice of the sagas with the same id."""
        if is_json:
            content = as_json({"error": str(error), "types": error.types}, indent=2)
            return Response(content, status_code=300, media_type="application/json")
        return self._pages.page(request, "several", status=300, saga_id=error.saga_id, types=error.types)

    async def details_of(self, saga_id: str, saga_type: str | None = None, *, max_wait: float) -> SagaDetails:
        """Return a saga's details from all services.

        Raises:
            AmbiguousSagaError: no type is given, and sagas of several types have this id.
        """
        answers, (choreography, unknown) = await asyncio.gather(
            self._services.query(
                ("saga", saga_id, saga_type), lambda each: each.saga(saga_id, saga_type), max_wait=max_wait
            ),
            self._services.choreography(max_wait=max_wait),
        )
        timeline = merged(saga_id, answers)
        return SagaDetails(
            timeline,
            progress(timeline, choreography, answers.by_service),
            answers.by_service,
            choreography,
            list(unknown),
            self._services.names,
        )

    async def nudge(self, request: Request) -> Response:
        """Ask all services to publish their last events of the saga again."""
        fields = await form(request, self._keys)
        by, saga_id = operator(request, self._keys, fields, default=self._actor), fields.get("saga", "")
        saga_type = fields.get("type") or None

        async def nudge_all() -> list[Line]:
            nudges = (
                _line_of(each, lambda each: each.nudge(saga_id, by, saga_type)) for each in self._services.clients
            )
            return list(await asyncio.gather(*nudges))

        await self._submissions.once(fields.get("submission", ""), "Nudged", nudge_all)
        return _back(saga_id, fields)

    async def abort(self, request: Request) -> Response:
        """Ask the first service that knows the saga to request its abort from all services."""
        fields = await form(request, self._keys)
        by, saga_id = operator(request, self._keys, fields, default=self._actor), fields.get("saga", "")
        saga_type = fields.get("type") or None
        await self._submissions.once(fields.get("submission", ""), "Abort", lambda: self._abort(saga_id, saga_type, by))
        return _back(saga_id, fields)

    async def _abort(self, saga_id: str, saga_type: str | None, by: Operator) -> list[Line]:
        lines = []
        for each in self._services.clients:
            line = await _line_of(each, lambda client: client.abort(saga_id, by, saga_type))
            lines.append(line)
            if line.outcome in ("done", "refused"):  # it asks all the others
                return [line]
        return lines


async def _line_of(
    client: ServiceClient, action: Callable[[ServiceClient], Awaitable[BatchResult[SagaOutcome]]]
) -> Line:
    """Run an action at one service, and return its outcome."""
    try:
        batch = await action(client)
    except (UnreachableError, NotAllowedError) as error:
        return Line(client.service, "unreachable", str(error))
    except AmbiguousSagaError as error:
        return Line(client.service, "refused", str(error))
    if not batch.rows:
        return Line(client.service, "nothing", "does not know this saga")
    refused = [row for row in batch.rows if row.is_refused]
    if len(refused) == len(batch.rows):
        return Line(client.service, "refused", str(refused[0].why))
    sent = [str(row.event_type) for row in batch.rows if not row.is_refused]
    return Line(client.service, "done", f"sent {', '.join(dict.fromkeys(sent))}")


def _back(saga_id: str, fields: Mapping[str, str]) -> Response:
    return RedirectResponse(saga_path(saga_id, fields.get("type"), submission=fields.get("submission", "")), 303)
