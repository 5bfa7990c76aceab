"""What stands before all endpoints: it refuses a request under another's name, or with a body that is too large."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from toolkit.api.responses import error_answer
from toolkit.web.host_names import answers_to, name_in

#: No order is larger: a thousand letters' ids are a sixth of it.
LARGEST_BODY = 256 * 1024
TOO_LARGE = f"a body has at most {LARGEST_BODY:,} bytes"


class FrontDoor:
    """Stands before an application.

    Starlette's own middlewares answer in plain text, and its TrustedHostMiddleware knows no addresses; so this one
    answers what a header alone says, and Starlette's counts the bytes that come without a Content-Length.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self._app = RequestBodyLimitMiddleware(app, max_body_size=LARGEST_BODY)
        self._names = frozenset(each.lower() for each in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say why not."""
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        if not answers_to(name := name_in(headers.get("host", "")), self._names):
            return error_answer(421, f"this service is not called {name!r}; SAGA_HTTP_NAMES has its further names")
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > len(str(LARGEST_BODY)) or int(length) > LARGEST_BODY):
            return error_answer(413, TOO_LARGE)
        return None
