"""Signing in with the services' token, where the console is reached from elsewhere."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.console.forms import form, person
from toolkit.console.guard import Keys, local_path, set_cookie
from toolkit.console.templating import Pages
from toolkit.web.guess_limiter import PAUSE, Guesses


class SigningIn:
    """`/sign-in` and `/sign-out`."""

    def __init__(self, keys: Keys, pages: Pages) -> None:
        self._keys = keys
        self._pages = pages
        self._guesses = Guesses()

    async def ask(self, request: Request) -> Response:
        """Ask for the token, and who it is."""
        return self._page(request, request.query_params.get("next", "/"))

    async def take(self, request: Request) -> Response:
        """Let in who has the token, and lead on to where they wanted to go."""
        fields = await form(request, self._keys)
        wanted = local_path(fields.get("next", "/"))
        name = person(fields.get("name", ""))
        async with self._guesses.turn(request.client.host if request.client else ""):
            is_right = self._keys.is_token(fields.get("secret", ""))
            if not is_right:
                await asyncio.sleep(PAUSE)
        if not is_right:
            return self._page(request, wanted, name=name, is_wrong=True)
        response = RedirectResponse(wanted, 303)
        set_cookie(response.headers, request.scope, self._keys.sign_in(name))
        return response

    async def leave(self, request: Request) -> Response:
        """Sign out, on whichever browser the cookie may still be."""
        await form(request, self._keys)
        self._keys.sign_out(request.state.cookie)
        response = RedirectResponse("/sign-in", 303)
        set_cookie(response.headers, request.scope, self._keys.guest())
        return response

    def _page(self, request: Request, wanted: str, *, name: str = "", is_wrong: bool = False) -> Response:
        facts = {"next": local_path(wanted), "given": name, "is_wrong": is_wrong}
        return self._pages.page(request, "sign_in", status=401 if is_wrong else 200, **facts)
