"""An endpoint as data: its path, what serves it, and all that the OpenAPI document tells of it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel
from starlette.routing import Route

from toolkit.api.access import Access
from toolkit.api.query_parameters import Parameter
from toolkit.api.request_bodies import RequestBody
from toolkit.api.responses import QUERY_TIMEOUT, Serve, answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One path and what it does.

    - `answer`: what it answers, as a model; None for what is no JSON of ours.
    - `order`: what its body holds; it is posted then, takes its time, and needs the token.
    - `shows_people`: it needs the token although it only reads.
    - `answers_503`: it answers just the same where something is not there.
    - `asks_nobody`: it asks no database, so that it has no errors of one.
    - `is_for_watchers`: the health listener serves it, too.
    - `is_open`: it needs no token, not even where reading does.
    - `may_miss`: it answers 404 where there is no such thing.
    - `may_be_ambiguous`: it answers 409 where sagas of several types have the id, and none is named.
    """

    path: str
    serve: Serve
    answer: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    order: type[RequestBody] | None = None
    shows_people: bool = False
    answers_503: bool = False
    asks_nobody: bool = False
    is_for_watchers: bool = False
    is_open: bool = False
    may_miss: bool = False
    may_be_ambiguous: bool = False

    @property
    def is_guarded(self) -> bool:
        """Whether it needs the token."""
        return self.shows_people or self.order is not None

    @property
    def method(self) -> str:
        """How it is asked."""
        return "POST" if self.order else "GET"

    def route(self, access: Access) -> Route:
        """Return the route that leads to it."""
        serve = self.serve
        if not self.asks_nobody:
            serve = answered(serve, within=None if self.is_guarded else QUERY_TIMEOUT)
        if self.is_guarded:
            serve = access.for_writing(serve)
        elif not self.is_open:
            serve = access.for_reading(serve)
        return Route(self.path, serve, methods=[self.method])
