"""`/sagas`: find a saga by an id, or list sagas by filters, page by page."""

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
from toolkit.console.service_cache import NO_TEXT, ServiceCache, is_queryable
from toolkit.console.templating import Pages, saga_path
from toolkit.declaration.events import SagaState
from toolkit.operations.attention import Attention
from toolkit.operations.search import Search

_FILTERS = ("state", "step", "attention", "age", "type")
_PARAMETERS = ("q", *_FILTERS, "from")

_DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


class SagasPage:
    """Lists and finds sagas."""

    def __init__(self, services: ServiceCache, pages: Pages) -> None:
        self._services = services
        self._pages = pages
        self._listing = Listing(services)

    async def show(self, request: Request) -> Response:
        """Show the sagas that match; redirect to the only saga that has the id, or an event with the id."""
        filters = {name: request.query_params.get(name, "").strip() for name in _FILTERS}
        q = request.query_params.get("q", "").strip()
        which, fault = _search(filters)
        fault = _invalid_parameter(request) or fault
        if fault:
            found = Listed([], None, {})
        elif q:
            found = await self._listing.find(q)
            if len(found.rows) == 1:
                return RedirectResponse(saga_path(found.rows[0].saga_id, found.rows[0].saga_type), 303)
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
            filters=filters,
            fault=fault,
            found=found,
            steps=sorted({node.step for node in choreography.nodes} | ({filters["step"]} - {""})),
            types=sorted({saga.name for saga in choreography.sagas} | ({filters["type"]} - {""})),
            states=list(SagaState),
            first=_address(filters),
            following=_address(filters, found.following) if found.following else None,
            is_first="from" not in request.query_params,
        )


def _invalid_parameter(request: Request) -> str | None:
    """Return what is wrong with the address's parameters, or None; the services would reject it, too."""
    for name, value in request.query_params.multi_items():
        if name not in _PARAMETERS:
            return f"There is no filter “{name}”; the filters are {', '.join(_PARAMETERS)}."
        if not is_queryable(value):
            return f"{name} {NO_TEXT}"
    return None


def _search(filters: Mapping[str, str]) -> tuple[Search, str | None]:
    """Return the search, and what is wrong with its filters."""
    which = Search(step=filters["step"] or None, type=filters["type"] or None)
    try:
        which = replace(
            which,
            state=SagaState(filters["state"]) if filters["state"] else None,
            attention=Attention(filters["attention"]) if filters["attention"] else None,
        )
    except ValueError:
        return which, "The state or the attention is unknown; choose one of the list."
    if not filters["age"]:
        return which, None
    try:
        age = _DURATION.validate_python(filters["age"])
    except ValidationError:
        age = timedelta(-1)
    if not timedelta(0) <= age <= timedelta(days=36_500):
        return which, f"“{filters['age']}” is not a duration; write 90s, 10min, 1h or 30d."
    return replace(which, older_than=age), None


def _place(request: Request) -> Place:
    if not (text := request.query_params.get("from")):
        return Place()
    try:
        return Place.read(text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HTTPException(400, "This address is not a page of the list; start with the first page.") from error


def _address(filters: Mapping[str, str], place: Place | None = None) -> str:
    parameters = {name: value for name, value in filters.items() if value} | (
        {"from": place.written()} if place else {}
    )
    return f"/sagas?{urlencode(parameters)}" if parameters else "/sagas"
