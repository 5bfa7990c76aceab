"""What the endpoints of one service have at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from starlette.responses import Response

from toolkit.api.responses import error_answer, json_answer
from toolkit.clock import Clock
from toolkit.declaration.contract import Contract
from toolkit.declaration.service import Service
from toolkit.operations.dead_letters import BatchResult
from toolkit.persistence.database import Database

T = TypeVar("T")

#: Tells of broker, database and relay whether each is there.
Readiness = Callable[[], Awaitable[Mapping[str, bool]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """One service, what it declares, its database, the name of its queue, and the clock."""

    service: Service
    contract: Contract
    database: Database
    readiness: Readiness
    queue: str
    clock: Clock
    _under_way: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def exchange(self) -> str:
        """The exchange's name, with which that of the queue begins."""
        return self.queue.removesuffix(f".{self.name}")

    def now(self) -> datetime:
        """Return the time."""
        return self.clock.now()

    def answer(self, **content: Any) -> Response:
        """Return an answer that says whose it is."""
        return json_answer({"service": self.name} | content)

    def unknown(self, what: str, its_id: str) -> Response:
        """Return that the service knows no such thing."""
        return error_answer(404, f"{self.name} {what} {its_id!r}", service=self.name)

    def unknown_saga(self, saga_id: str) -> Response:
        """Return that the service knows no such saga."""
        return self.unknown("knows no saga", saga_id)

    async def batch(self, doing: Coroutine[Any, Any, BatchResult]) -> Response:
        """Answer what one bite of a long write did, and where the next one begins."""
        done = await self.uncut(doing)
        return self.answer(rows=done.rows, after=done.after)

    async def uncut(self, doing: Coroutine[Any, Any, T]) -> T:
        """Await a write in a task of its own: one cancelled in a statement would leave SQLite's lock with nobody."""
        task = asyncio.create_task(doing)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)
