"""`/questions`: the steps that wait for an answer, and the forms that give it."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.client.service_client import ServiceClient
from toolkit.console.event_forms import FormField, fields_of, values_of
from toolkit.console.forms import form, operator
from toolkit.console.guard import SessionKeys
from toolkit.console.service_cache import LIVE_MAX_WAIT, MAX_WAIT, ServiceCache
from toolkit.console.submissions import Line, Submissions
from toolkit.console.templating import Pages, saga_path
from toolkit.errors import AmbiguousSagaError, InvalidAnswerError, NotAllowedError, UnreachableError
from toolkit.persistence.audit_log import Operator
from toolkit.protocol.question_rows import AnswerOutcome, Question

#: How many questions of each service are shown.
_MOST = 100


class QuestionsPage:
    """Shows the open questions of all services, and answers one."""

    def __init__(
        self, services: ServiceCache, pages: Pages, keys: SessionKeys, submissions: Submissions, *, actor: str
    ) -> None:
        self._services = services
        self._pages = pages
        self._keys = keys
        self._submissions = submissions
        self._actor = actor

    async def show(self, request: Request) -> Response:
        """Show the open questions, the longest waiting first."""
        is_live = request.query_params.get("part") == "live"
        found = await self._services.query(
            "questions", lambda each: each.questions(limit=_MOST), max_wait=LIVE_MAX_WAIT if is_live else MAX_WAIT
        )
        rows = sorted((row for rows in found.by_service.values() for row in rows), key=attrgetter("asked_at"))
        return self._pages.page(
            request,
            "questions",
            questions=rows,
            unreachable=found.unreachable,
            is_cut=any(len(rows) == _MOST for rows in found.by_service.values()),
        )

    async def ask(self, request: Request) -> Response:
        """Show a question with the form of one of its answers."""
        client, event = self._asked(request.query_params)
        saga_id, saga_type = request.query_params.get("saga", ""), request.query_params.get("type", "")
        fields = await self._fields(client, event, saga_type)
        return self._pages.page(
            request,
            "question",
            service=client.service,
            saga_id=saga_id,
            saga_type=saga_type,
            event=event,
            fields=fields,
            question=await self._question(client, saga_id, saga_type, event),
            submission=self._submissions.new_name(),
        )

    async def answer(self, request: Request) -> Response:
        """Give the answer; the saga's page shows what became of it."""
        submitted = await form(request, self._keys)
        client, event = self._asked(submitted)
        by = operator(request, self._keys, submitted, default=self._actor)
        saga_id, saga_type = submitted.get("saga", ""), submitted.get("type", "")
        try:
            fields = values_of(await self._fields(client, event, saga_type), submitted)
        except ValueError as error:
            raise HTTPException(400, f"{error}. Go back, and correct it.") from error

        async def give() -> list[Line]:
            return [await _line_of(client, (saga_id, event, fields), by, saga_type)]

        name = submitted.get("submission", "")
        await self._submissions.once(name, f"Answer: {event}", give)
        return RedirectResponse(saga_path(saga_id, saga_type, submission=name), 303)

    def _asked(self, fields: Any) -> tuple[ServiceClient, str]:
        """Return the service and the event that a query or a form names."""
        if (client := self._services.named(fields.get("service", ""))) is None:
            raise HTTPException(404, "There is no such service here.")
        return client, str(fields.get("event", ""))

    async def _fields(self, client: ServiceClient, event: str, saga_type: str) -> list[FormField]:
        """Return the inputs for an answer's fields, by its service's contract."""
        choreography, unknown = await self._services.choreography()
        contract = next((each for each in choreography.contracts if each.service == client.service), None)
        if contract is None:
            raise HTTPException(503, f"{client.service} is unreachable: {unknown.get(client.service, 'try again')}")
        saga = next((each for each in contract.sagas if each.name == saga_type), None)
        if saga is None or event not in contract.events or not contract.events[event].answer:
            raise HTTPException(404, f"{client.service} takes no such answer.")
        return fields_of(contract.events[event].json_schema, without=saga.id_field)

    async def _question(self, client: ServiceClient, saga_id: str, saga_type: str, event: str) -> Question | None:
        """Return the open question that this answer is for, or None where there is none any more."""
        found = await self._services.query("questions", lambda each: each.questions(limit=_MOST), of=[client.service])
        rows = found.by_service.get(client.service, [])
        return next(
            (row for row in rows if (row.saga_id, row.saga_type) == (saga_id, saga_type) and event in row.answers), None
        )


async def _line_of(client: ServiceClient, given: tuple[str, str, dict[str, Any]], by: Operator, saga_type: str) -> Line:
    """Give the answer, and return its outcome."""
    try:
        outcome = await client.answer(*given, by, saga_type)
    except (UnreachableError, NotAllowedError) as error:
        return Line(client.service, "unreachable", str(error))
    except (InvalidAnswerError, AmbiguousSagaError) as error:
        return Line(client.service, "refused", str(error))
    if outcome is None:
        return Line(client.service, "nothing", "does not know this saga")
    shown = "done" if outcome.is_answered else "refused" if outcome.is_refused else "sent"
    return Line(client.service, shown, _text(outcome))


def _text(outcome: AnswerOutcome) -> str:
    if outcome.is_answered:
        return f"{outcome.step} has taken {outcome.event_type}"
    return f"{'refused' if outcome.is_refused else 'sent'}: {outcome.why}"
