"""The context that all endpoints of one service share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypeVar

from starlette.responses import Response

from toolkit.api.responses import error_answer, json_answer
from toolkit.clock import Clock
from toolkit.declaration.contract import Contract, contract_of
from toolkit.declaration.service import Service
from toolkit.operations.outcomes import BatchResult, DeadLetterOutcome
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime

T = TypeVar("T")

#: Returns whether broker, database and relay work.
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

    @classmethod
    def of(cls, runtime: ServiceRuntime, readiness: Readiness) -> Self:
        """Return the context of a service that runs in this process."""
        return cls(
            service=runtime.service,
            contract=contract_of(runtime.service, runtime.settings),
            database=runtime.database,
            readiness=readiness,
            queue=runtime.queue,
            clock=runtime.clock,
        )

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def exchange(self) -> str:
        """The exchange's name, the first part of the queue's."""
        return self.queue.removesuffix(f".{self.name}")

    def now(self) -> datetime:
        """Return the time."""
        return self.clock.now()

    def answer(self, **content: Any) -> Response:
        """Return a JSON response with the service's name."""
        return json_answer({"service": self.name} | content)

    def unknown(self, what: str, its_id: str) -> Response:
        """Return a 404 that names the missing object."""
        return error_answer(404, f"{self.name} {what} {its_id!r}", service=self.name)

    def unknown_saga(self, saga_id: str) -> Response:
        """Return a 404 for an unknown saga."""
        return self.unknown("knows no saga", saga_id)

    async def batch(self, operation: Coroutine[Any, Any, BatchResult[DeadLetterOutcome]]) -> Response:
        """Run one batch of a write; return its rows, and `after` for the next batch."""
        done = await self.uncut(operation)
        return self.answer(rows=done.rows, after=done.after)

    async def uncut(self, operation: Coroutine[Any, Any, T]) -> T:
        """Await a write in a task of its own: a cancellation within a statement would keep SQLite locked."""
        task = asyncio.create_task(operation)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)
