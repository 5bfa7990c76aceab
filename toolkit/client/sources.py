"""Reading the saga logs of services, wherever they are: over a service's HTTP API, or in its database.

A source only reads. One that can't be read is reported as unreachable; it never counts as "nothing was done".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.errors import AmbiguousSagaError, UnreachableError, describe
from toolkit.persistence import dead_letters, outbox, pruning_watermark, saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.dead_letters import Selection
from toolkit.protocol.invariants import Backlog
from toolkit.urls import shown_url
from toolkit.web.client import AnswerTooLargeError, BoundedClient

T = TypeVar("T")
Rows = list[dict[str, Any]]
#: Entries, and behind which row the next ones stand; None where these were the last.
Page = tuple[Rows, int | None]

#: How long one source may take to answer, in seconds; a person is waiting.
ANSWER_TIMEOUT = 5

#: How many entries are read at once: as many as a service's API gives.
PAGE = 1_000

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
)


class Source(Protocol):
    """Where one service's saga log can be read; reading raises UnreachableError where it can't be."""

    @property
    def service(self) -> str:
        """The service's name."""
        ...

    async def entries(
        self, saga_id: str | None = None, limit: int | None = None, *, saga_type: str | None = None
    ) -> Rows:
        """Return log entries, the oldest first, of all sagas or of one; with a limit, the newest so many."""
        ...

    async def sagas(self, state: SagaState | None = None, limit: int = 100) -> Rows:
        """Return what the service knows of each saga, the latest moved first."""
        ...

    async def page(self, after: int) -> Page:
        """Return the log entries behind that row, a page of them; 0 stands before the first."""
        ...

    async def since(self, after: int | None, limit: int) -> tuple[Rows, int]:
        """Return the entries behind that row, or the newest ones, and the row of the last; no page ends this."""
        ...

    async def backlog(self) -> Backlog:
        """Return what lies in the service beside its log."""
        ...

    async def close(self) -> None:
        """Give up what was opened for reading."""
        ...


#: A kind of source; whoever asks controls has controls answer.
S = TypeVar("S", bound=Source)


class HttpSource:
    """A running service, by the address of its API."""

    def __init__(self, service: str, url: str, *, token: SecretStr | None = None) -> None:
        self.service = service
        self._url = url
        self._reading = showing(token)
        self._client = BoundedClient(base_url=url, timeout=ANSWER_TIMEOUT)

    @property
    def url(self) -> str:
        """The address of the service's API."""
        return self._url

    @property
    def address(self) -> str:
        """The same as it may be shown."""
        return shown_url(self._url)

    async def entries(
        self, saga_id: str | None = None, limit: int | None = None, *, saga_type: str | None = None
    ) -> Rows:
        """Ask for log entries; without a limit, for all of one saga."""
        if saga_id is not None and limit is None:
            rows = await self._get(f"/sagas/{quote(saga_id, safe='')}", "entries", type=saga_type)
            return [{name: row.get(name) for name in saga_log.SHOWN} for row in rows]  # as any other list of entries
        return await self._get("/log", "entries", saga=saga_id, type=saga_type, limit=limit)

    async def sagas(self, state: SagaState | None = None, limit: int = 100) -> Rows:
        """Ask for the sagas that the service knows."""
        return await self._get("/sagas", "sagas", state=state, limit=limit)

    async def page(self, after: int) -> Page:
        """Ask for the next entries."""
        content = await self._ask("/log", after=after, limit=PAGE)
        return [with_times(row) for row in content.get("entries", [])], content.get("next")

    async def since(self, after: int | None, limit: int) -> tuple[Rows, int]:
        """Ask for the next entries, or the newest."""
        content = await self._ask("/log", after=after, limit=limit)
        if "last" not in content:
            raise UnreachableError(f"{self.address} does not tell where its log ends: is it an older version?")
        return [with_times(row) for row in content.get("entries", [])], int(content["last"])

    async def backlog(self) -> Backlog:
        """Ask for what is left."""
        content = await self._ask("/backlog")
        pruned = content.get("pruned_until")
        return Backlog(
            self.service,
            outbox=content.get("outbox"),
            dead_letters=content.get("dead_letters"),
            pruned_until=datetime.fromisoformat(pruned) if pruned else None,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _get(self, path: str, wanted: str, **query: Any) -> Rows:
        return [with_times(row) for row in (await self._ask(path, **query)).get(wanted, [])]

    async def _ask(self, path: str, **query: Any) -> dict[str, Any]:
        params = {name: value for name, value in query.items() if value is not None}
        return self._content(await self._answer("GET", path, params=params, headers=self._reading))

    async def _answer(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Return the service's answer, whatever its status.

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
        """Return the answer, if it is one of this very service; who knows no such saga answers 404."""
        content = json_object(response)
        if response.status_code == httpx.codes.CONFLICT:
            raise AmbiguousSagaError(str(content.get("saga_id")), list(content.get("types", ())))
        if response.status_code == httpx.codes.UNAUTHORIZED:
            what = "another token" if self._reading else "a token"
            raise UnreachableError(
                f"{self.address} wants {what}: set SAGA_API_READ_TOKEN, or SAGA_API_TOKEN, as {self.service} has it"
            )
        if response.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            fault = content.get("error", response.reason_phrase)
            raise UnreachableError(f"{self.address} answers {response.status_code}: {fault}")
        if (answering := content.get("service")) != self.service:
            raise UnreachableError(
                f"{self.address} is not {self.service}: {answering or 'something else'} answers there"
            )
        return content


class DatabaseSource:
    """A service's database, read beside the running service or without it."""

    def __init__(self, service: str, url: str) -> None:
        self.service = service
        self._url = make_url(url)
        self._database: Database | None = None

    async def entries(
        self, saga_id: str | None = None, limit: int | None = None, *, saga_type: str | None = None
    ) -> Rows:
        """Read log entries."""
        which: Any = {"saga_id": saga_id, "saga_type": saga_type, "limit": limit}
        return await self._read(lambda connection: saga_log.entries(connection, **which))

    async def sagas(self, state: SagaState | None = None, limit: int = 100) -> Rows:
        """Read the sagas that the service knows."""
        return await self._read(lambda connection: saga_log.sagas(connection, state=state, limit=limit))

    async def page(self, after: int) -> Page:
        """Read the next entries."""
        return await self._read(lambda connection: saga_log.page(connection, after=after, limit=PAGE))

    async def since(self, after: int | None, limit: int) -> tuple[Rows, int]:
        """Read the next entries, or the newest."""
        return await self._read(lambda connection: saga_log.since(connection, after=after, limit=limit))

    async def backlog(self) -> Backlog:
        """Count what is left."""
        return await self._read(self._backlog)

    async def close(self) -> None:
        """Close the connections."""
        if self._database:
            await self._database.close()

    @property
    def url(self) -> str:
        """The database's URL."""
        return self._url.render_as_string(hide_password=False)

    @property
    def address(self) -> str:
        """The same as it may be shown."""
        return shown_url(self.url)

    async def _backlog(self, connection: AsyncConnection) -> Backlog:
        return Backlog(
            self.service,
            outbox=await outbox.count(connection),
            dead_letters=await dead_letters.count(connection, Selection()),
            pruned_until=await pruning_watermark.reached(connection),
        )

    async def _read(self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with self._opened().reading() as connection:
                return await query(connection)
        except (DBAPIError, OSError) as error:
            raise UnreachableError(f"{self.address} can't be read: {cause_of(error)}") from error

    def _opened(self) -> Database:
        """Open the database if it is there; SQLite would make a missing file, and its empty log would be a lie."""
        if self._url.drivername == "sqlite" and not Path(self._url.database or "").is_file():
            raise UnreachableError(f"there is no file {self._url.database}")
        if self._database is None:
            self._database = Database(self.url)
        return self._database


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What several sources answered, by service, and why others did not."""

    by_service: dict[str, T]
    unreachable: dict[str, str]


async def ask_all(
    sources: Iterable[S], question: Callable[[S], Awaitable[T]], *, within: float | None = ANSWER_TIMEOUT
) -> Answers[T]:
    """Ask all sources at once; each has so many seconds."""
    sources = list(sources)
    answers = await asyncio.gather(*(_ask(source, question, within) for source in sources))
    named = list(zip((source.service for source in sources), answers, strict=True))
    return Answers(
        by_service={name: answer for name, answer in named if not isinstance(answer, UnreachableError)},
        unreachable={name: str(answer) for name, answer in named if isinstance(answer, UnreachableError)},
    )


async def pages(source: Source) -> AsyncIterator[Rows]:
    """Yield the source's whole log, page by page; each page may take as long as any answer."""
    after: int | None = 0
    while after is not None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                page, after = await source.page(after)
        except TimeoutError as error:
            raise UnreachableError(f"no answer within {ANSWER_TIMEOUT} seconds") from error
        yield page


async def _ask(source: S, question: Callable[[S], Awaitable[T]], within: float | None) -> T | UnreachableError:
    try:
        async with asyncio.timeout(within):
            return await question(source)
    except UnreachableError as error:
        return error
    except TimeoutError:
        return UnreachableError(f"no answer within {within} seconds")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return what a service answers, which is an object; an empty one where anything else answers."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def showing(token: SecretStr | None) -> dict[bytes, bytes]:
    """Return the headers that show a token, if there is one."""
    return {b"Authorization": b"Bearer " + token.get_secret_value().encode()} if token else {}


def with_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of an answer with its times as times."""
    return row | {name: datetime.fromisoformat(row[name]) for name in _TIMES if row.get(name)}


def cause_of(error: DBAPIError | OSError) -> str:
    """Return what the driver says, without SQLAlchemy's statement and link."""
    return describe_fault(error)
