"""Reading and writing one service's database, beside the running service or without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.clock import Clock, SystemClock
from toolkit.declaration.contract import Contract, EventContract
from toolkit.declaration.service import Service
from toolkit.errors import UnreachableError
from toolkit.operations.statistics import Statistics
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import describe_fault, is_contention
from toolkit.urls import shown_url

T = TypeVar("T")


class DatabaseConnection:
    """A service's database; the base of its client.

    - `queue`: the service's queue, to which its dead letters are redriven; its default name without one.
    - `contract`: returns the service's contract, and raises UnreachableError where its declarations are missing; called
      only where it is needed.
    - `declared`: returns the declarations themselves, likewise.
    """

    def __init__(
        self,
        service: str,
        url: str,
        *,
        queue: str | None = None,
        contract: Callable[[], Contract] | None = None,
        declared: Callable[[], Service] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.service = service
        self._url = make_url(url)
        self._queue = queue or f"saga.{service}"
        self._contract = contract or self._undeclared
        self._service = declared or self._undeclared
        self._clock = clock or SystemClock()
        self._statistics = Statistics(service, self._clock)
        self._database: Database | None = None

    @property
    def url(self) -> str:
        """The database's URL."""
        return self._url.render_as_string(hide_password=False)

    @property
    def address(self) -> str:
        """The database's URL without its password."""
        return shown_url(self.url)

    async def close(self) -> None:
        """Close the connections."""
        if self._database:
            await self._database.close()

    async def _read(self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with self._opened().reading() as connection:
                return await query(connection)
        except (DBAPIError, OSError) as error:
            raise self._unreadable(error) from error

    async def _write(self, change: Callable[[Database], Awaitable[T]]) -> T:
        """Make a change; a conflict with the running service rolled it back, so it is made again."""
        while True:
            try:
                return await change(self._opened())
            except (DBAPIError, OSError) as error:
                if not is_contention(error):
                    raise UnreachableError(f"{self.address} can't be written: {describe_fault(error)}") from error

    def _unreadable(self, error: DBAPIError | OSError) -> UnreachableError:
        return UnreachableError(f"{self.address} can't be read: {describe_fault(error)}")

    def _opened(self) -> Database:
        """Open the database if it is there; SQLite would make a missing file, and its empty log would be a lie."""
        if self._url.drivername == "sqlite" and not Path(self._url.database or "").is_file():
            raise UnreachableError(f"there is no file {self._url.database}")
        if self._database is None:
            self._database = Database(self.url)
        return self._database

    def _declared(self) -> Mapping[str, EventContract]:
        """Return the events of the service's contract; none where its declarations are missing."""
        try:
            return self._contract().events
        except UnreachableError:
            return {}

    def _undeclared(self) -> NoReturn:
        raise UnreachableError(f"the declarations of {self.service} are not known to this client")
