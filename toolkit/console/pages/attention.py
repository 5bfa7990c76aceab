"""`/attention`: dead letters in groups, overdue steps and contradictions; redriving and dropping dead letters."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.client.service_client import ServiceClient
from toolkit.console.forms import form, operator
from toolkit.console.guard import SessionKeys
from toolkit.console.redrive_jobs import JobAction, Jobs, count_failed_again, preview
from toolkit.console.service_cache import LIVE_MAX_WAIT, MAX_WAIT, ServiceCache
from toolkit.console.submissions import Submissions
from toolkit.console.templating import Pages
from toolkit.errors import AmbiguousSagaError, NotAllowedError, UnreachableError
from toolkit.persistence.dead_letters import Selection
from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.tracking.snapshot import lacks

#: How many overdue steps of each service are shown, the longest waiting first; and contradictions, the newest first.
_MOST_OVERDUE = 100


class AttentionPage:
    """Shows what is stuck, and the services that are not ready; redrives and drops dead letters."""

    def __init__(self, services: ServiceCache, pages: Pages, keys: SessionKeys, jobs: Jobs, *, actor: str) -> None:
        self._services = services
        self._pages = pages
        self._keys = keys
        self._jobs = jobs
        self._actor = actor

    async def show(self, request: Request) -> Response:
        """Show the groups of dead letters, overdue steps, contradictions, and what services lack."""
        is_live = request.query_params.get("part") == "live"
        max_wait = LIVE_MAX_WAIT if is_live else MAX_WAIT
        groups, overdue, contradictory, ready = await asyncio.gather(
            self._services.query("groups", lambda each: each.groups(), max_wait=max_wait),
            self._services.query("overdue", lambda each: each.overdue(limit=_MOST_OVERDUE), max_wait=max_wait),
            self._services.query(
                "contradictions", lambda each: each.contradictions(limit=_MOST_OVERDUE), max_wait=max_wait
            ),
            self._services.query("ready", lambda each: each.ready(), max_wait=max_wait),
        )
        steps = [(name, row) for name, rows in overdue.by_service.items() for row in rows]
        contradictions = [(name, row) for name, rows in contradictory.by_service.items() for row in rows]
        dead_letters = [(name, row) for name, rows in groups.by_service.items() for row in rows]
        lacking = {name: lacks(parts) for name, parts in ready.by_service.items()}
        unreachable = groups.unreachable | overdue.unreachable | contradictory.unreachable | ready.unreachable
        return self._pages.page(
            request,
            "attention",
            groups=sorted(dead_letters, key=lambda each: (-each[1].count, each[0], each[1].reason)),
            overdue=sorted(steps, key=lambda each: each[1].since),
            contradictions=sorted(contradictions, key=lambda each: each[1].since, reverse=True),
            is_cut=any(len(rows) >= _MOST_OVERDUE for rows in overdue.by_service.values()),
            unreachable=unreachable,
            not_ready={name: parts for name, parts in lacking.items() if parts and name not in unreachable},
            jobs=[job for job in self._jobs.listed() if not job.is_over][:5],
        )

    async def dry_run(self, request: Request) -> Response:
        """Show what redriving or dropping the selected dead letters would do."""
        verb = _verb(request)
        client, which = self._selected(dict(request.query_params))
        found, fault = None, None
        try:
            found = await preview(verb, client, which)
        except (UnreachableError, NotAllowedError, AmbiguousSagaError) as error:
            fault = str(error)
        return self._pages.page(
            request,
            "dead_letters",
            status=502 if fault else 200,
            verb=verb,
            service=client.service,
            which=which,
            found=found,
            fault=fault,
            sample=await _sample(client, which) if found else [],
            job_name=Submissions.new_name(),
        )

    async def start(self, request: Request) -> Response:
        """Start a job for the dead letters of the dry run; a second click finds the first one's job."""
        verb = _verb(request)
        fields = await form(request, self._keys)
        by = operator(request, self._keys, fields, default=self._actor)
        client, which = self._selected(fields)
        total = fields.get("total", "")
        name = fields.get("job", "")
        if not name or not total.isdigit():
            raise HTTPException(400, "The form is incomplete. Go back, reload the page, and try again.")
        job = self._jobs.start(name, verb, client, which, by, int(total))
        return RedirectResponse(f"/attention/jobs/{job.name}", 303)

    async def job(self, request: Request) -> Response:
        """Show the progress of a redrive or a drop."""
        job = self._jobs.get(request.path_params["name"])
        if job is None:
            raise HTTPException(404, "There is no such redrive or drop; jobs end with the console's process.")
        client = self._services.named(job.service)
        if client and job.is_final and job.sent and request.query_params.get("part") != "live":
            await count_failed_again(job, client)
        return self._pages.page(request, "job", job=job, is_final=job.is_final)

    def _selected(self, fields: dict[str, str]) -> tuple[ServiceClient, Selection]:
        """Return the service and the selected dead letters.

        Raises:
            HTTPException: the selection names no service, or would select all its dead letters.
        """
        client = self._services.named(fields.get("service", ""))
        which = Selection(
            reason=fields.get("reason_is") or None,
            step=fields.get("step") or None,
            saga_id=fields.get("saga") or None,
            saga_type=fields.get("type") or None,
            up_to=fields.get("up_to") or None,
        )
        if client is None or not (which.reason or which.step or which.saga_id):
            raise HTTPException(400, "Select dead letters: a service, and a reason, step or saga.")
        return client, which


def _verb(request: Request) -> JobAction:
    try:
        return JobAction(request.path_params["verb"])
    except ValueError as error:
        raise HTTPException(404) from error


async def _sample(client: ServiceClient, which: Selection) -> list[DeadLetterSummary]:
    """Return the newest of the selected dead letters, as examples."""
    try:
        return await client.dead_letters(which, limit=10)
    except (UnreachableError, NotAllowedError):
        return []
