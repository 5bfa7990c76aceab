"""Who may use the console, and what a page may do in a browser.

- Every answer forbids the browser all but the console's own scripts, styles and images.
- A form is taken only from the console's own pages: by where the browser says that it comes from, and by a token in it
  that belongs to the browser's cookie, which no other site's request carries.
- On this machine's own address everybody is let in, by its own names alone, since any site may point a name of its own
  there. On any other address one signs in first, with the token that the services want.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from http.cookies import SimpleCookie
from urllib.parse import quote, urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.web.host_names import name_in

#: What a browser may do with a page: load our own files, ask us again, and nothing else.
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
#: By these names a browser on this machine finds it.
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")
#: How long one stays signed in, in seconds: a shift.
_SHIFT = 12 * 3600
#: As many people's names are kept; more than work at once.
_MOST_NAMES = 1_000
#: No form of ours is larger; it is read whole.
MOST_BYTES = 16_384

#: Asks for the same page again, now from a page of ours, so that the browser shows its cookie.
_AGAIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>saga console</title>'
    '<meta http-equiv="refresh" content="0"><p>One moment.</p></html>'
)

#: What needs no signing in.
_OPEN = ("/static/", "/sign-in", "/healthz")


class Keys:
    """Signs cookies and forms, and knows who is signed in.

    The key is new at each start, and made of nothing that anybody could guess: a stranger has a cookie, too. Sessions
    end with the process, and as soon as one signs out, whoever has kept the cookie.
    """

    def __init__(self, token: SecretStr | None) -> None:
        self._key = secrets.token_bytes(32)
        self._token = token
        self._signed_in: set[str] = set()
        self._names: dict[str, str] = {}

    def is_token(self, shown: str) -> bool:
        """Whether this is the token of the services."""
        return self._token is not None and hmac.compare_digest(
            shown.encode(errors="replace"), self._token.get_secret_value().encode()
        )

    def sign_in(self, name: str) -> str:
        """Return a new cookie for a person who has shown the token."""
        cookie = self._cookie("operator")
        self._signed_in = {each for each in self._signed_in if self.role(each)} | {cookie}
        self.know(cookie, name)
        return cookie

    def sign_out(self, cookie: str) -> None:
        """End a session: the cookie is nobody's any more."""
        self._signed_in.discard(cookie)
        self._names.pop(cookie, None)

    def guest(self) -> str:
        """Return a new cookie for somebody who has shown nothing."""
        return self._cookie("guest")

    def role(self, cookie: str) -> str | None:
        """Return whom a cookie is for: `operator`, `guest`, or None where it is not ours, too old, or signed out."""
        facts, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("cookie", facts).encode()):
            return None
        role, until, _ = facts.split(".", 2)
        is_over = int(until) <= time.time() or (role == "operator" and cookie not in self._signed_in)
        return None if is_over else role

    def know(self, cookie: str, name: str) -> None:
        """Keep the name of the person who has this cookie."""
        self._names.pop(cookie, None)
        self._names[cookie] = name
        while len(self._names) > _MOST_NAMES:
            del self._names[next(iter(self._names))]

    def name(self, cookie: str) -> str | None:
        """Return the name of the person who has this cookie, if it was told."""
        return self._names.get(cookie)

    def form_token(self, cookie: str) -> str:
        """Return a token for one form of this cookie's browser; no two are alike, so that compression tells nothing."""
        salt = secrets.token_urlsafe(9)
        return f"{salt}.{self._sign(f'form {salt}', cookie)}"

    def is_form_token(self, shown: str, cookie: str) -> bool:
        """Whether that token was in a form of this cookie's browser."""
        salt, _, signature = shown.partition(".")
        return hmac.compare_digest(signature.encode(errors="replace"), self._sign(f"form {salt}", cookie).encode())

    def _cookie(self, role: str) -> str:
        """Return a new cookie: who it is for, when it ends, and that we made it."""
        facts = f"{role}.{int(time.time()) + _SHIFT}.{secrets.token_urlsafe(12)}"
        return f"{facts}.{self._sign('cookie', facts)}"

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()[:40]


class Guard:
    """Stands before all pages; puts `cookie` into the request's state."""

    def __init__(self, app: ASGIApp, *, keys: Keys, is_open: bool) -> None:
        self._app = app
        self._keys = keys
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = self._keys.role(cookie := shown_cookie(HTTPConnection(scope)))
        scope.setdefault("state", {})["cookie"] = cookie if known else self._keys.guest()
        is_led_here = known is None and _is_led_here(scope)
        refusal = HTMLResponse(_AGAIN) if is_led_here else self._refusal(scope, known)
        # To whom another site has led here we give no new cookie: the one that its browser has stays.
        needs_cookie = not (known or is_led_here or scope["path"].startswith("/static/"))

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
            return PlainTextResponse("this console answers to localhost and 127.0.0.1 alone\n", 421)
        if scope["method"] == "POST" and not _is_from_here(headers):
            return PlainTextResponse("this form does not come from the console's own pages\n", 403)
        if self._is_open or role == "operator" or scope["path"].startswith(_OPEN):
            return None
        if "hx-request" in headers or scope["method"] == "POST":
            return PlainTextResponse("sign in first\n", 401)
        wanted = scope["path"] + (f"?{query}" if (query := scope["query_string"].decode("latin-1")) else "")
        return RedirectResponse(f"/sign-in?next={quote(wanted, safe='')}", 303)


def cookie_name(scope: Scope) -> str:
    """Return the cookie's name; browsers keep cookies by host, whatever the port, so the port is in it.

    It is the one that the browser knows: a container listens on another one. By HTTPS the name begins with `__Host-`:
    no other host, and nothing that was sent without HTTPS, can set it.
    """
    is_https = scope["scheme"] == "https"
    usual = 443 if is_https else 80
    try:
        port = urlsplit(f"//{Headers(scope=scope).get('host', '')}").port
    except ValueError:
        port = None
    return f"{'__Host-' if is_https else ''}saga_console_{port or usual}"


def shown_cookie(connection: HTTPConnection) -> str:
    """Return our cookie, as the browser shows it."""
    return connection.cookies.get(cookie_name(connection.scope), "")


def set_cookie(headers: MutableHeaders, scope: Scope, cookie: str) -> None:
    """Have the browser keep a cookie: no script reads it, and no other site's request carries it."""
    morsel: SimpleCookie = SimpleCookie({cookie_name(scope): cookie})
    for each in morsel.values():
        each["path"], each["httponly"], each["samesite"], each["max-age"] = "/", True, "strict", _SHIFT
        each["secure"] = scope["scheme"] == "https"
    headers.append("Set-Cookie", morsel.output(header="").strip())


def local_path(wanted: str) -> str:
    """Return a path of the console's own, or its first page where that is none."""
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_ours and not urlsplit(wanted).netloc else "/"


def _is_led_here(scope: Scope) -> bool:
    """Whether a link on another site led here: its request carries no cookie, even where the browser has one."""
    headers = Headers(scope=scope)
    way = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    return scope["method"] == "GET" and way in {("cross-site", "navigate"), ("same-site", "navigate")}


def _is_from_here(headers: Headers) -> bool:
    """Whether the browser says that a form comes from a page of ours; what says nothing is no browser."""
    if context := headers.get("sec-fetch-site"):
        return context == "same-origin"
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")
