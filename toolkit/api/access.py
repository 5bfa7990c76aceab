"""Access by tokens, with a limit on guesses; without a token for reading when only this machine reaches the API."""

from __future__ import annotations

import asyncio
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.responses import Serve, error_answer
from toolkit.configuration.tokens import TokenDigest
from toolkit.web.guess_limiter import PAUSE, Guesses


class Access:
    """The tokens of one service.

    - `token`: allows everything; without one, writing and reading messages are switched off.
    - `read_token`: allows reading, except messages.
    - `reads_are_open`: reading, except messages, needs no token.
    """

    def __init__(
        self,
        service: str,
        *,
        token: TokenDigest | None,
        read_token: TokenDigest | None = None,
        reads_are_open: bool = True,
    ) -> None:
        self.reads_are_open = reads_are_open
        self._service = service
        self._token = token
        self._read_token = read_token
        self._guesses = Guesses()

    def for_reading(self, serve: Serve) -> Serve:
        """Require either token."""
        if self.reads_are_open:
            return serve

        @wraps(serve)
        async def guard(request: Request) -> Response:
            if any(await self._check(request)):
                return await serve(request)
            return self._refused("SAGA_API_READ_TOKEN, or its SAGA_API_TOKEN")

        return guard

    def for_writing(self, serve: Serve) -> Serve:
        """Require the token; refuse every request when the service has none."""

        @wraps(serve)
        async def guard(request: Request) -> Response:
            service = self._service
            if self._token is None:
                how = f"start {service} with SAGA_API_TOKEN, and send that as Authorization: Bearer"
                return error_answer(403, f"this is switched off: {how}", service=service)
            may_all, may_read = await self._check(request)
            if may_all:
                return await serve(request)
            if may_read:
                return error_answer(
                    403, f"this token only reads: send the SAGA_API_TOKEN of {service}", service=service
                )
            return self._refused("SAGA_API_TOKEN")

        return guard

    async def _check(self, request: Request) -> tuple[bool, bool]:
        """Return whether the request has the token, and whether it has the read token; a wrong one is delayed.

        Raises:
            HTTPException: 429, too many wrong tokens of this client are being delayed.
        """
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        shown = text.strip().encode("latin-1")
        if kind.lower() != "bearer" or not shown:
            return False, False  # not a guess: no delay
        async with self._guesses.turn(request.client.host if request.client else ""):
            found = _is_of(self._token, shown), _is_of(self._read_token, shown)
            if not any(found):
                await asyncio.sleep(PAUSE)
        return found

    def _refused(self, wanted: str) -> Response:
        text = f"send the token of {self._service}: Authorization: Bearer and its {wanted}"
        refused = error_answer(401, text, service=self._service)
        refused.headers["www-authenticate"] = "Bearer"
        return refused


def _is_of(digest: TokenDigest | None, shown: bytes) -> bool:
    return digest is not None and digest.is_of(shown)
