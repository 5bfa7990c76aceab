"""An endpoint as data: its path, its handler, and its description in the OpenAPI document."""

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
    """One path and its handler.

    - `answer`: the model of its JSON response; None when that is not JSON.
    - `body`: the model of its request body; such a request is a POST, has no time limit, and needs the token.
    - `shows_messages`: it needs the token although it only reads.
    - `answers_503`: it answers 503 with the same model when something is not available.
    - `is_without_database`: it has no database errors and no time limit.
    - `is_health_check`: the health listener serves it, too.
    - `is_open`: it needs no token, even when reading does.
    - `may_miss`: it answers 404 when the object does not exist.
    - `may_be_ambiguous`: it answers 409 when sagas of several types have the id, and the request names no type.
    - `may_be_invalid`: it answers 422 when the fields of an event are wrong.
    """

    path: str
    serve: Serve
    answer: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    body: type[RequestBody] | None = None
    shows_messages: bool = False
    answers_503: bool = False
    is_without_database: bool = False
    is_health_check: bool = False
    is_open: bool = False
    may_miss: bool = False
    may_be_ambiguous: bool = False
    may_be_invalid: bool = False

    @property
    def is_guarded(self) -> bool:
        """Whether it needs the token."""
        return self.shows_messages or self.body is not None

    @property
    def method(self) -> str:
        """Its HTTP method."""
        return "POST" if self.body else "GET"

    def route(self, access: Access) -> Route:
        """Return its route, guarded as it needs."""
        serve = self.serve
        if not self.is_without_database:
            serve = answered(serve, within=None if self.is_guarded else QUERY_TIMEOUT)
        if self.is_guarded:
            serve = access.for_writing(serve)
        elif not self.is_open:
            serve = access.for_reading(serve)
        return Route(self.path, serve, methods=[self.method])
