"""Requests to one service's HTTP API, and the checks that every answer has to pass."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from toolkit.client.fan_out import RESPONSE_TIMEOUT
from toolkit.errors import (
    AmbiguousSagaError,
    InvalidAnswerError,
    NotAllowedError,
    TokenRefusedError,
    UnreachableError,
    describe,
)
from toolkit.operations.outcomes import BatchResult, DeadLetterOutcome, SagaOutcome
from toolkit.protocol.rows import Row
from toolkit.urls import shown_url
from toolkit.web.client import AnswerTooLargeError, BoundedClient

R = TypeVar("R", bound=Row)
#: A batch's outcomes are of one kind.
B = TypeVar("B", DeadLetterOutcome, SagaOutcome)

#: How long a service may take for one batch, in seconds; a shorter timeout here would not stop the service.
_BATCH_TIMEOUT = 60
_REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN)

#: The fields of answers that are times.
_TIMES = (
    "started_at",
    "moved_at",
    "at",
    "first_at",
    "last_at",
    "sent_at",
    "since",
    "due_at",
    "occurred_at",
    "deadline",
    "asked_at",
    "decided_at",
)


class HttpConnection:
    """A connection to a running service's API; the base of its client.

    `read_token` is sent where it suffices, `token` with what changes something; each stands in for the other.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(
        self, service: str, url: str, *, token: SecretStr | None = None, read_token: SecretStr | None = None
    ) -> None:
        self.service = service
        self.url = url
        self._reading = authorization(read_token or token)
        self._writing = authorization(token or read_token)
        try:
            self._client = BoundedClient(base_url=url, timeout=RESPONSE_TIMEOUT)
        except httpx.InvalidURL as error:
            raise ValueError(str(error)) from error

    @property
    def address(self) -> str:
        """The address of the service's API, without a password."""
        return shown_url(self.url)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(self, path: str, **query: Any) -> dict[str, Any]:
        params = {name: value for name, value in query.items() if value is not None}
        return self._content(await self._response("GET", path, params=params, headers=self._reading))

    async def _batch(self, kind: type[B], path: str, body: Mapping[str, Any]) -> BatchResult[B]:
        content = await self._request("POST", path, json=body)
        return BatchResult(rows=self._rows(kind, content, "rows"), after=content.get("after"))

    def _rows(self, kind: type[R], content: Mapping[str, Any], name: str) -> list[R]:
        """Return the rows that an answer has under this name; none where it has no such name."""
        return [self._row(kind, each) for each in content.get(name) or []]

    def _row(self, kind: type[R], row: Mapping[str, Any]) -> R:
        try:
            times = {name: datetime.fromisoformat(row[name]) for name in _TIMES if row.get(name)}
            return kind.of({**row, **times})
        except KeyError as error:
            raise UnreachableError(f"{self.address} returns rows without {error}: is it an older version?") from error
        except (TypeError, ValueError) as error:
            raise UnreachableError(f"{self.address} returns rows that can't be read: {describe(error)}") from error

    async def _request(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        """Send a request with the operator's token.

        Raises:
            TokenRefusedError: the service requires a token, or another one.
            NotAllowedError: the service refuses the request.
            InvalidAnswerError: the fields of an answer are wrong.
            UnreachableError: the service does not answer.
        """
        response = await self._response(method, path, headers=self._writing, timeout=_BATCH_TIMEOUT, **what)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise TokenRefusedError(self.service, self.address, _fault(response), is_shown=bool(self._writing))
        if response.status_code in _REFUSED:
            raise NotAllowedError(f"{self.address} answers {response.status_code}: {_fault(response)}")
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise InvalidAnswerError(_fault(response))
        return self._content(response)

    async def _response(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Return the service's response, whatever its status.

        Raises:
            UnreachableError: there is none, or one that is too large to be a service's.
        """
        try:
            return await self._client.request(method, path, **what)
        except AnswerTooLargeError as error:
            raise UnreachableError(f"{self.service} at {self.address} is not read: {error}") from error
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.address} does not answer: {describe(error)}") from error

    def _content(self, response: httpx.Response) -> dict[str, Any]:
        """Return the response's object, if it is this very service's; 404 means that it does not know the saga."""
        content = json_object(response)
        if response.status_code == httpx.codes.CONFLICT and not content.get("answer"):
            raise AmbiguousSagaError(str(content.get("saga_id")), list(content.get("types", ())))
        if response.status_code == httpx.codes.UNAUTHORIZED:
            what = "another token" if self._reading else "a token"
            raise UnreachableError(
                f"{self.address} wants {what}: set SAGA_API_READ_TOKEN, or SAGA_API_TOKEN, as {self.service} has it"
            )
        if response.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
            fault = content.get("error", response.reason_phrase)
            raise UnreachableError(f"{self.address} answers {response.status_code}: {fault}")
        if (answering := content.get("service")) != self.service:
            raise UnreachableError(
                f"{self.address} is not {self.service}: {answering or 'something else'} answers there"
            )
        return content


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return the response's JSON object; an empty one where it has none."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def authorization(token: SecretStr | None) -> dict[bytes, bytes]:
    """Return the headers that carry a token; none without one."""
    return {b"Authorization": b"Bearer " + token.get_secret_value().encode()} if token else {}


def _fault(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
