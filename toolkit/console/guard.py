"""Access to the console, and what a page may do in a browser.

- Every response allows the browser only the console's own scripts, styles and images.
- A form is accepted from the console's own pages only: the browser's origin headers have to match, and the form's token
  has to belong to the browser's cookie, which requests from other sites do not carry.
- On a loopback address every request is accepted, under loopback host names only, since any site can point a name of
  its own at 127.0.0.1. On any other address a user signs in first, with the services' token, and the host name is this
  machine's, one of `SAGA_HTTP_NAMES`, or an address.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Collection
from http.cookies import SimpleCookie
from urllib.parse import quote, urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.web.host_names import answers_to, name_in

#: A page loads the console's own files and requests the console, and nothing else.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
#: The host names by which a browser on this machine reaches the console.
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")
#: How long a session lasts, in seconds: a shift.
_SHIFT = 12 * 3600
#: How many names are kept: more than people who work at once.
_MOST_NAMES = 1_000
#: The largest body that is read; every form of the console is smaller.
MOST_BYTES = 16_384

#: Reloads the same page from the console's own site, so that the browser sends its cookie.
_AGAIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>saga console</title>'
    '<meta http-equiv="refresh" content="0"><p>One moment.</p></html>'
)

#: Paths that need no session.
_OPEN = ("/static/", "/sign-in", "/healthz")


class SessionKeys:
    """Signs cookies and forms, and keeps the sessions.

    The key is random and new at each start: unauthenticated clients get signed cookies, too. A session ends with the
    process, or when its user signs out, also for a copy of the cookie.
    """

    def __init__(self, token: SecretStr | None) -> None:
        self._key = secrets.token_bytes(32)
        self._token = token
        self._signed_in: set[str] = set()
        self._names: dict[str, str] = {}

    def is_token(self, text: str) -> bool:
        """Whether this is the services' token."""
        return self._token is not None and hmac.compare_digest(
            text.encode(errors="replace"), self._token.get_secret_value().encode()
        )

    def sign_in(self, name: str) -> str:
        """Return a new cookie for a person who has presented the token."""
        cookie = self._cookie("operator")
        self._signed_in = {each for each in self._signed_in if self.role(each)} | {cookie}
        self.keep_name(cookie, name)
        return cookie

    def sign_out(self, cookie: str) -> None:
        """End a session; its cookie is invalid from now on."""
        self._signed_in.discard(cookie)
        self._names.pop(cookie, None)

    def guest(self) -> str:
        """Return a new cookie for a client that has not signed in."""
        return self._cookie("guest")

    def role(self, cookie: str) -> str | None:
        """Return a cookie's role: `operator`, `guest`, or None where it is forged, expired or signed out."""
        facts, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("cookie", facts).encode()):
            return None
        role, until, _ = facts.split(".", 2)
        is_over = int(until) <= time.time() or (role == "operator" and cookie not in self._signed_in)
        return None if is_over else role

    def keep_name(self, cookie: str, name: str) -> None:
        """Keep the name of the person with this cookie."""
        self._names.pop(cookie, None)
        self._names[cookie] = name
        while len(self._names) > _MOST_NAMES:
            del self._names[next(iter(self._names))]

    def name(self, cookie: str) -> str | None:
        """Return the name of the person with this cookie, if it is known."""
        return self._names.get(cookie)

    def form_token(self, cookie: str) -> str:
        """Return a token for one form of this cookie's browser; each is salted, so that compression leaks nothing."""
        salt = secrets.token_urlsafe(9)
        return f"{salt}.{self._sign(f'form {salt}', cookie)}"

    def is_form_token(self, token: str, cookie: str) -> bool:
        """Whether the token was issued for this cookie."""
        salt, _, signature = token.partition(".")
        return hmac.compare_digest(signature.encode(errors="replace"), self._sign(f"form {salt}", cookie).encode())

    def _cookie(self, role: str) -> str:
        """Return a new cookie: its role, its end, a salt and the signature."""
        facts = f"{role}.{int(time.time()) + _SHIFT}.{secrets.token_urlsafe(12)}"
        return f"{facts}.{self._sign('cookie', facts)}"

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()[:40]


class Guard:
    """The middleware before all pages; it puts `cookie` into the request's state."""

    def __init__(self, app: ASGIApp, *, keys: SessionKeys, is_open: bool, names: Collection[str] = ()) -> None:
        self._app = app
        self._keys = keys
        self._is_open = is_open
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = self._keys.role(cookie := sent_cookie(HTTPConnection(scope)))
        scope.setdefault("state", {})["cookie"] = cookie if known else self._keys.guest()
        is_linked = known is None and _is_linked(scope)
        refusal = HTMLResponse(_AGAIN) if is_linked else self._refusal(scope, known)
        # A browser that follows a link from another site keeps the cookie that it has.
        needs_cookie = not (known or is_linked or scope["path"].startswith("/static/"))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({name: value for name, value in _HEADERS.items() if name not in headers})
                headers.setdefault("Cache-Control", "no-store")
                if needs_cookie and "set-cookie" not in headers:
                    set_cookie(headers, scope, scope["state"]["cookie"])
            await send(message)

        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope, role: str | None) -> Response | None:
        headers = Headers(scope=scope)
        if self._is_open and name_in(headers.get("host", "")) not in _OWN_NAMES:
            return PlainTextResponse("this console answers to localhost and 127.0.0.1 only\n", 421)
        if refusal := foreign_name(headers, self._names):
            return refusal
        if scope["method"] == "POST" and not _is_from_here(headers):
            return PlainTextResponse("this form does not come from the console's own pages\n", 403)
        if self._is_open or role == "operator" or scope["path"].startswith(_OPEN):
            return None
        if "hx-request" in headers or scope["method"] == "POST":
            return PlainTextResponse("sign in first\n", 401)
        wanted = scope["path"] + (f"?{query}" if (query := scope["query_string"].decode("latin-1")) else "")
        return RedirectResponse(f"/sign-in?next={quote(wanted, safe='')}", 303)


def foreign_name(headers: Headers, names: Collection[str]) -> Response | None:
    """Return the refusal of a request under a host name that is none of the console's; None where it is one."""
    name = name_in(headers.get("host", ""))
    if answers_to(name, names):
        return None
    return PlainTextResponse(f"this console is not called {name!r}; SAGA_HTTP_NAMES has its further names\n", 421)


def cookie_name(scope: Scope) -> str:
    """Return the cookie's name; it contains the port, since browsers store cookies by host only.

    The port is the browser's: a container listens on another one. With HTTPS the name begins with `__Host-`, so that
    neither another host nor a plain HTTP response can set it.
    """
    is_https = scope["scheme"] == "https"
    usual = 443 if is_https else 80
    try:
        port = urlsplit(f"//{Headers(scope=scope).get('host', '')}").port
    except ValueError:
        port = None
    return f"{'__Host-' if is_https else ''}saga_console_{port or usual}"


def sent_cookie(connection: HTTPConnection) -> str:
    """Return the console's cookie as the browser sent it."""
    return connection.cookies.get(cookie_name(connection.scope), "")


def set_cookie(headers: MutableHeaders, scope: Scope, cookie: str) -> None:
    """Set a cookie that no script can read and no request from another site carries."""
    morsel: SimpleCookie = SimpleCookie({cookie_name(scope): cookie})
    for each in morsel.values():
        each["path"], each["httponly"], each["samesite"], each["max-age"] = "/", True, "strict", _SHIFT
        each["secure"] = scope["scheme"] == "https"
    headers.append("Set-Cookie", morsel.output(header="").strip())


def local_path(wanted: str) -> str:
    """Return the path if it is the console's own, else that of its first page."""
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_ours and not urlsplit(wanted).netloc else "/"


def _is_linked(scope: Scope) -> bool:
    """Whether the request follows a link on another site; it carries no cookie, even where the browser has one."""
    headers = Headers(scope=scope)
    fetch = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    return scope["method"] == "GET" and fetch in {("cross-site", "navigate"), ("same-site", "navigate")}


def _is_from_here(headers: Headers) -> bool:
    """Whether a form comes from the console's own pages; a client without these headers is no browser."""
    if context := headers.get("sec-fetch-site"):
        return context == "same-origin"
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")
