"""`/sign-in` and `/sign-out`: sessions on a console that other machines reach."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.console.forms import form, person
from toolkit.console.guard import SessionKeys, local_path, set_cookie
from toolkit.console.templating import Pages
from toolkit.web.guess_limiter import PAUSE, Guesses


class SignInPage:
    """Starts and ends sessions; the services' token is the password."""

    def __init__(self, keys: SessionKeys, pages: Pages) -> None:
        self._keys = keys
        self._pages = pages
        self._guesses = Guesses()

    async def show(self, request: Request) -> Response:
        """Show the form for name and token."""
        return self._page(request, request.query_params.get("next", "/"))

    async def sign_in(self, request: Request) -> Response:
        """Start a session if the token is right, and redirect to the page that was requested."""
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

    async def sign_out(self, request: Request) -> Response:
        """End the session of this cookie, in every browser that has it."""
        await form(request, self._keys)
        self._keys.sign_out(request.state.cookie)
        response = RedirectResponse("/sign-in", 303)
        set_cookie(response.headers, request.scope, self._keys.guest())
        return response

    def _page(self, request: Request, wanted: str, *, name: str = "", is_wrong: bool = False) -> Response:
        values = {"next": local_path(wanted), "given": name, "is_wrong": is_wrong}
        return self._pages.page(request, "sign_in", status=401 if is_wrong else 200, **values)
