"""Middleware in front of all endpoints: it refuses an unknown host name and a body that is too large."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from toolkit.api.responses import error_answer
from toolkit.web.host_names import answers_to, name_in

#: No request body needs more: the ids of a thousand dead letters are a sixth of it.
LARGEST_BODY = 256 * 1024
TOO_LARGE = f"a body has at most {LARGEST_BODY:,} bytes"


class FrontDoor:
    """Checks the Host and Content-Length headers, and answers in JSON; without `names` any host is accepted.

    Starlette's own middlewares answer in plain text, and its TrustedHostMiddleware accepts no IP addresses. Its
    RequestBodyLimitMiddleware counts the bytes of a request without a Content-Length.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str] | None) -> None:
        self._app = RequestBodyLimitMiddleware(app, max_body_size=LARGEST_BODY)
        self._names = None if names is None else frozenset(each.lower() for each in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        host = headers.get("host")  # only HTTP/1.0 may leave it out, and no browser does
        names = self._names
        if host is not None and names is not None and not answers_to(name := name_in(host), names):
            return error_answer(421, f"this service is not called {name!r}; SAGA_HTTP_NAMES has its further names")
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > len(str(LARGEST_BODY)) or int(length) > LARGEST_BODY):
            return error_answer(413, TOO_LARGE)
        return None
