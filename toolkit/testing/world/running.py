"""The running services of a world: what they receive, the time that passes, and what they have written."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import func, inspect
from sqlmodel import select

from toolkit.configuration.settings import EMBEDDED, Settings
from toolkit.declaration.service import Service
from toolkit.errors import WorldError
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letter_queries, outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.pending_rows import UnsentMessage
from toolkit.testing.clock import ManualClock
from toolkit.testing.simulation.inline_sqlite import inline_sqlite
from toolkit.testing.simulation.virtual_time import VirtualLoop
from toolkit.testing.worker_thread import WorkerThread
from toolkit.testing.world.transport import WorldTransport

T = TypeVar("T")

#: How much time passes in each action: enough for the batches of ended sagas, and too little for a retry.
MOMENT = timedelta(milliseconds=100)
#: Rows that come due are known by their time, so that no poll has to find them; each would take its time in a skip.
_SELDOM = timedelta(days=1)
#: Longer than any test skips: a saga that waits is not overdue, unless the test's settings say so.
_NEVER = timedelta(days=3000)
#: The time in which the services stop.
_LAST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one service has written: its log, the messages that wait in its outbox, and its dead letters."""

    log: Sequence[LogEntry]
    unsent: Sequence[UnsentMessage]
    dead_letters: Sequence[DeadLetterSummary]


class RunningWorld:
    """Runs services on the embedded transport, in a thread of its own, in which no time passes by itself."""

    def __init__(self, services: Sequence[Service], directory: Path, settings: Mapping[str, Any]) -> None:
        self._thread = WorkerThread("saga-world")
        self._services = {each.name: each for each in services}
        self._resources = ExitStack()
        self.clock = ManualClock()
        try:
            self._thread.run(self._start, directory, settings)
        except BaseException:
            self._thread.at_end(self._resources.close)
            self._thread.stop()
            raise
        self._thread.at_end(self._close)

    def _start(self, directory: Path, settings: Mapping[str, Any]) -> None:
        self._resources.enter_context(inline_sqlite())
        self._resources.enter_context(_fewer_logs())
        own = Settings(data_dir=directory, broker_url=EMBEDDED).model_copy(
            update={"relay_poll": _SELDOM, "watch_every": _SELDOM, "overdue_after": _NEVER, "abort_after": _NEVER}
        )
        own = own.model_copy(update=dict(settings))
        self.loop = VirtualLoop(self.clock)
        self._transport = WorldTransport(list(self._services.values()), own, clock=self.clock)
        self.loop.complete(self._transport.__aenter__())
        self._pass(MOMENT)

    @property
    def emitted(self) -> Sequence[WireMessage]:
        """The events that the services have emitted so far."""
        return self._transport.emitted

    @property
    def databases(self) -> dict[str, str]:
        """The URLs of the databases, by service."""
        return {name: each.database.url for name, each in self._transport.runtimes.items()}

    def publish(self, message: WireMessage) -> None:
        """Publish a message as a client, and let a moment pass.

        Raises:
            WorldError: no service of the world consumes it.
        """
        if not self._transport.consumes(message):
            raise WorldError(
                f"no service of the world consumes {message.routing_key}: make the world of a service that does, "
                f"or take another event; it has {', '.join(self._services)}"
            )
        self._thread.run(self._publish, message)

    def skip(self, by: timedelta) -> None:
        """Let this time pass: each deadline, retry and timer in it comes at its own time, in order."""
        self._thread.run(self._skip, by)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the world's event loop, without letting time pass."""
        return self._thread.run(self.loop.complete, coroutine)

    def evidence(self) -> dict[str, Evidence]:
        """Return what each service has written."""
        return self.run(self._evidence())

    def rows(self, model: type[T], where: Mapping[str, Any]) -> list[T]:
        """Return the rows of a table with these values, in the order of their keys.

        Raises:
            WorldError: no service of the world has such a table.
        """
        return self.run(_rows(self._database_of(model), model, where))

    def write(self, row: Any) -> None:
        """Insert a row, or replace the one with its key.

        Raises:
            WorldError: no service of the world has such a table.
        """
        self.run(_write(self._database_of(type(row)), row))

    def close(self) -> None:
        """Stop the services."""
        self._thread.stop()

    def _publish(self, message: WireMessage) -> None:
        task = self.loop.create_task(self._transport.receive(message))
        self._pass(MOMENT)
        if task.done():
            task.result()

    def _skip(self, by: timedelta) -> None:
        """Go from one due row to the next: no commit announces a join's deadline to the relay, and polls are rare."""
        until = self.clock.now() + by
        while due := self.loop.complete(self._next_due(until)):
            for runtime in self._transport.runtimes.values():
                runtime.relay.wake(due)
            self._pass(due - self.clock.now())
        self._pass(until - self.clock.now())

    async def _next_due(self, until: datetime) -> datetime | None:
        """Return when the next row of an outbox comes due, of those up to this time."""
        found = []
        for runtime in self._transport.runtimes.values():
            async with runtime.database.reading() as connection:
                later = outbox.outbox.c.due_at > self.clock.now(), outbox.outbox.c.due_at <= until
                found.append(await connection.scalar(select(func.min(outbox.outbox.c.due_at)).where(*later)))
        return min(filter(None, found), default=None)

    def _pass(self, by: timedelta) -> None:
        self.loop.advance(by)

    def _close(self) -> None:
        with self._resources:
            stopping = self.loop.create_task(self._transport.__aexit__(None, None, None))
            self._pass(_LAST)
            stopping.result()
            self.loop.close()

    async def _evidence(self) -> dict[str, Evidence]:
        found = {}
        for name, runtime in self._transport.runtimes.items():
            async with runtime.database.reading() as connection:
                log = await saga_log_queries.entries(connection)
                unsent, dead_letters = await outbox.listed(connection), await dead_letter_queries.summaries(connection)
                found[name] = Evidence(log, unsent, dead_letters)
        return found

    def _database_of(self, model: type[Any]) -> Database:
        table = getattr(model, "__table__", None)
        for name, service in self._services.items():
            if table is not None and service.tables is table.metadata:
                return self._transport.runtimes[name].database
        raise WorldError(
            f"no service of the world has the table of {getattr(model, '__name__', model)}: take a model of one of "
            f"{', '.join(self._services)}, whose tables are part of Service(tables=…)"
        )


@contextmanager
def _fewer_logs() -> Iterator[None]:
    """Log warnings and errors alone, unless the test has set up its logs; a failure has the timeline."""
    if structlog.is_configured():
        yield
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    try:
        yield
    finally:
        structlog.reset_defaults()


async def _rows(database: Database, model: type[T], where: Mapping[str, Any]) -> list[T]:
    keys = inspect(model).primary_key
    async with database.session() as session:
        return list(await session.exec(select(model).filter_by(**where).order_by(*keys)))


async def _write(database: Database, row: Any) -> None:
    async with database.transaction() as session:
        await session.merge(row)
