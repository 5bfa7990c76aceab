"""The limit of a request's head, whether it arrives in one piece or in many.

h11 bounds only the part of a head that waits for its end, so a larger head in one piece would be accepted.
"""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

#: The most bytes of a head: h11's limit of a head that arrives in pieces.
LARGEST_HEAD = 16 * 1024
#: The bytes of a request line beside method and target, and those of a header beside its name and value.
_LINE, _HEADER = len(b"  HTTP/1.1\r\n\r\n"), len(b": \r\n")


class HeadLimit:
    """The middleware that refuses a request with a larger head, before any other reads it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 431."""
        is_large = scope["type"] == "http" and _size(scope) > LARGEST_HEAD
        refusal = PlainTextResponse(f"a request's head has at most {LARGEST_HEAD:,} bytes\n", 431)
        await (refusal if is_large else self._app)(scope, receive, send)


def _size(scope: Scope) -> int:
    target = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])
    return _LINE + target + sum(_HEADER + len(name) + len(value) for name, value in scope["headers"])
