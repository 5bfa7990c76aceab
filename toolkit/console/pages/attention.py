"""`/attention`: what needs a person — dead letters in groups, overdue steps — and what may be done about it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.client.service_client import ServiceClient
from toolkit.console.forms import form, operator
from toolkit.console.guard import Keys
from toolkit.console.redrive_jobs import Jobs, Verb, look, see_what_came_back
from toolkit.console.service_cache import LIVE_PATIENCE, PATIENCE, Services
from toolkit.console.submissions import Submissions
from toolkit.console.templating import Pages
from toolkit.errors import AmbiguousSagaError, NotAllowedError, UnreachableError
from toolkit.persistence.dead_letters import Selection
from toolkit.tracking.snapshot import lacks

#: So many overdue steps of each service are shown, the longest waiting first, and so many contradictions, the newest.
_MOST_OVERDUE = 100
#: Services of an older version do not tell what the newest letter of a group says.
_ERROR = {"error": None, "saga_type": None, "saga_id": None}


class AttentionPage:
    """What is stuck, and why; and which services are not ready, for in these all may be stuck soon."""

    def __init__(self, services: Services, pages: Pages, keys: Keys, jobs: Jobs, *, actor: str) -> None:
        self._services = services
        self._pages = pages
        self._keys = keys
        self._jobs = jobs
        self._actor = actor

    async def show(self, request: Request) -> Response:
        """Show the groups of letters, the overdue steps, and what a service is without."""
        is_live = request.query_params.get("part") == "live"
        patience = LIVE_PATIENCE if is_live else PATIENCE
        groups, overdue, odd, ready = await asyncio.gather(
            self._services.ask("groups", lambda each: each.groups(), patience=patience),
            self._services.ask("overdue", lambda each: each.overdue(limit=_MOST_OVERDUE), patience=patience),
            self._services.ask("odd", lambda each: each.contradictions(limit=_MOST_OVERDUE), patience=patience),
            self._services.ask("ready", lambda each: each.ready(), patience=patience),
        )
        steps = [row | {"service": name} for name, rows in overdue.by_service.items() for row in rows]
        contradictions = [row | {"service": name} for name, rows in odd.by_service.items() for row in rows]
        dead_letters = [_ERROR | row | {"service": name} for name, rows in groups.by_service.items() for row in rows]
        lacking = {name: lacks(parts) for name, parts in ready.by_service.items()}
        unreachable = groups.unreachable | overdue.unreachable | odd.unreachable | ready.unreachable
        return self._pages.page(
            request,
            "attention",
            groups=sorted(dead_letters, key=lambda row: (-row["count"], row["service"], row["reason"])),
            overdue=sorted(steps, key=lambda row: row["since"]),
            contradictions=sorted(contradictions, key=lambda row: row["since"], reverse=True),
            is_cut=any(len(rows) >= _MOST_OVERDUE for rows in overdue.by_service.values()),
            unreachable=unreachable,
            not_ready={name: parts for name, parts in lacking.items() if parts and name not in unreachable},
            jobs=[job for job in self._jobs.listed() if not job.is_over][:5],
        )

    async def ask(self, request: Request) -> Response:
        """Show what redriving or dropping a group would do, before it is done."""
        verb = _verb(request)
        client, which = self._meant(dict(request.query_params))
        found, fault = None, None
        try:
            found = await look(verb, client, which)
        except (UnreachableError, NotAllowedError, AmbiguousSagaError) as error:
            fault = str(error)
        return self._pages.page(
            request,
            "letters",
            status=502 if fault else 200,
            verb=verb,
            service=client.service,
            which=which,
            found=found,
            fault=fault,
            sample=await _sample(client, which) if found else [],
            job_name=Submissions.new_name(),
        )

    async def begin(self, request: Request) -> Response:
        """Begin to redrive or drop what was looked at; a second click finds the first one's job."""
        verb = _verb(request)
        fields = await form(request, self._keys)
        by = operator(request, self._keys, fields, default=self._actor)
        client, which = self._meant(fields)
        total = fields.get("total", "")
        name = fields.get("job", "")
        if not name or not total.isdigit():
            raise HTTPException(400, "This form is not whole. Go back, load the page anew, and try again.")
        job = self._jobs.start(name, verb, client, which, by, int(total))
        return RedirectResponse(f"/attention/jobs/{job.name}", 303)

    async def job(self, request: Request) -> Response:
        """Show how far a redrive or a drop has come."""
        job = self._jobs.get(request.path_params["name"])
        if job is None:
            raise HTTPException(404, "There is no such redrive or drop, or it was before the console's last start.")
        client = self._services.named(job.service)
        if client and job.is_final and job.sent and request.query_params.get("part") != "live":
            await see_what_came_back(job, client)
        return self._pages.page(request, "job", job=job, is_final=job.is_final)

    def _meant(self, said: dict[str, str]) -> tuple[ServiceClient, Selection]:
        """Return the service and the letters that are meant; never all of them by leaving something out."""
        client = self._services.named(said.get("service", ""))
        which = Selection(
            reason=said.get("reason_is") or None,
            step=said.get("step") or None,
            saga_id=said.get("saga") or None,
            saga_type=said.get("type") or None,
            up_to=said.get("up_to") or None,
        )
        if client is None or not (which.reason or which.step or which.saga_id):
            raise HTTPException(400, "Say which letters: a service, and their reason, step or saga.")
        return client, which


def _verb(request: Request) -> Verb:
    try:
        return Verb(request.path_params["verb"])
    except ValueError as error:
        raise HTTPException(404) from error


async def _sample(client: ServiceClient, which: Selection) -> list[dict[str, Any]]:
    """Return the newest of the letters, to show what they are."""
    try:
        return await client.dead_letters(which, limit=10)
    except (UnreachableError, NotAllowedError):
        return []
