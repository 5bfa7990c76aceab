"""`/sagas`: find a saga by an id, or those of a kind, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.configuration.settings import Duration
from toolkit.console.saga_listing import Listed, Listing, Place
from toolkit.console.service_cache import NO_TEXT, Services, can_be_asked
from toolkit.console.templating import Pages, saga_path
from toolkit.declaration.events import SagaState
from toolkit.operations.search import Attention, Search

_FILTERS = ("state", "step", "attention", "age", "type")
_ASKED = ("q", *_FILTERS, "from")

_DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


class SagasPage:
    """Lists and finds sagas."""

    def __init__(self, services: Services, pages: Pages) -> None:
        self._services = services
        self._pages = pages
        self._listing = Listing(services)

    async def show(self, request: Request) -> Response:
        """Show the sagas that are meant; lead straight to the one whose id, or whose event's, was given."""
        asked = {name: request.query_params.get(name, "").strip() for name in _FILTERS}
        q = request.query_params.get("q", "").strip()
        which, fault = _search(asked)
        fault = _not_understood(request) or fault
        if fault:
            found = Listed([], None, {})
        elif q:
            found = await self._listing.find(q)
            if len(found.rows) == 1:
                return RedirectResponse(saga_path(found.rows[0]["saga_id"], found.rows[0]["saga_type"]), 303)
            if not found.rows and await self._listing.has_dead_letters(q):
                return RedirectResponse(saga_path(q), 303)
        else:
            found = await self._listing.page(which, _place(request))
        choreography, _ = await self._services.choreography()
        return self._pages.page(
            request,
            "sagas",
            status=400 if fault else 200,
            q=q,
            asked=asked,
            fault=fault,
            found=found,
            steps=sorted({node.step for node in choreography.nodes} | ({asked["step"]} - {""})),
            types=sorted({saga.name for saga in choreography.sagas} | ({asked["type"]} - {""})),
            states=list(SagaState),
            first=_address(asked),
            following=_address(asked, found.following) if found.following else None,
            is_first="from" not in request.query_params,
        )


def _not_understood(request: Request) -> str | None:
    """Return what of the address nobody could mean, or None; the services would refuse to be asked it."""
    for name, value in request.query_params.multi_items():
        if name not in _ASKED:
            return f"There is no filter “{name}”: there are {', '.join(_ASKED)}."
        if not can_be_asked(value):
            return f"{name} {NO_TEXT}"
    return None


def _search(asked: Mapping[str, str]) -> tuple[Search, str | None]:
    """Return what is searched for, and what is wrong with it."""
    which = Search(step=asked["step"] or None, type=asked["type"] or None)
    try:
        which = replace(
            which,
            state=SagaState(asked["state"]) if asked["state"] else None,
            attention=Attention(asked["attention"]) if asked["attention"] else None,
        )
    except ValueError:
        return which, "There is no such state, or no such kind of attention: choose one of those listed."
    if not asked["age"]:
        return which, None
    try:
        age = _DURATION.validate_python(asked["age"])
    except ValidationError:
        age = timedelta(-1)
    if not timedelta(0) <= age <= timedelta(days=36_500):
        return which, f"“{asked['age']}” is no age: write 90s, 10min, 1h or 30d."
    return replace(which, older_than=age), None


def _place(request: Request) -> Place:
    if not (text := request.query_params.get("from")):
        return Place()
    try:
        return Place.read(text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HTTPException(400, "This address does not name a page of the list; begin with the first.") from error


def _address(asked: Mapping[str, str], place: Place | None = None) -> str:
    said = {name: value for name, value in asked.items() if value} | ({"from": place.written()} if place else {})
    return f"/sagas?{urlencode(said)}" if said else "/sagas"
