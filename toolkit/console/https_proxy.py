"""Trust the forwarded headers of an HTTPS proxy, where the console is started with `--behind-https`.

uvicorn's own ProxyHeadersMiddleware trusts by the proxy's address, which is not known beforehand in a network of
containers, and ignores X-Forwarded-Host.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.console.guard import foreign_name

#: How long a browser uses HTTPS only for this host, in seconds: a year.
_HSTS = "max-age=31536000"


class BehindHttps:
    """The outermost middleware; it restores the address, scheme and host of the browser's request to the proxy.

    The last value of a forwarded header is the proxy's own; a browser can forge those before it.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as HTTPS; redirect one that reached the proxy by plain HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        shown = _as_sent(scope)

        async def with_hsts(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Strict-Transport-Security"] = _HSTS
            await send(message)

        is_plain = _last(scope, "x-forwarded-proto").lower() == "http"
        refusal = (foreign_name(Headers(scope=shown), self._names) or _refusal(shown)) if is_plain else None
        await (refusal or self._app)(shown, receive, with_hsts)


def _as_sent(scope: Scope) -> Scope:
    """Return the request with the browser's address, scheme and host."""
    headers = list(scope["headers"])
    if host := _last(scope, "x-forwarded-host"):
        headers = [pair for pair in headers if pair[0] != b"host"] + [(b"host", host.encode("latin-1"))]
    address = _last(scope, "x-forwarded-for")
    client = (address, 0) if address else scope["client"]
    return {**scope, "scheme": "https", "headers": headers, "client": client}


def _refusal(scope: Scope) -> Response:
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("use https, and replace the token: this one was sent in plain text\n", 403)
    query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
    return RedirectResponse(f"https://{Headers(scope=scope).get('host', '')}{scope['path']}{query}", 308)


def _last(scope: Scope, name: str) -> str:
    """Return the last value of a comma-separated header, or an empty text where it is missing."""
    values = Headers(scope=scope).getlist(name)
    return values[-1].rpartition(",")[2].strip() if values else ""
