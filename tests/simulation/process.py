"""One service's process: it may be killed between any two steps of the event loop, and started upon the same file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

from tests.simulation.virtual_time import VirtualLoop
from tests.simulation.wire import Exit, Parcel, Wire
from toolkit import Service, Settings
from toolkit.clock import Clock
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime

#: The tasks of a process in the order in which they were started: a set's would be that of their addresses, and no run
#: like another.
Tasks = dict[asyncio.Task[Any], None]
#: Those of the process that is running; a task that it starts is its own, too.
_tasks: ContextVar[Tasks] = ContextVar("tasks")
#: So many rounds of cancellation end what waits for each other; more would be a task that refuses to die.
_ROUNDS = 10


class Process:
    """Runs one service's host; a delivery that is not acknowledged when it dies goes back to the wire."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        *,
        wire: Wire,
        way_out: Exit,
        acknowledged: Callable[[Parcel], None],
        loop: VirtualLoop,
        clock: Clock,
    ) -> None:
        self._service = service
        self._settings = settings
        self._wire = wire
        self.way_out = way_out
        self._loop = loop
        self._clock = clock
        self._tasks: Tasks = {}
        self._unacknowledged: dict[asyncio.Task[None], Parcel] = {}
        self._acknowledged = acknowledged
        self._database: Database | None = None
        self.runtime: ServiceRuntime

    @property
    def is_at_work(self) -> bool:
        """Whether it holds messages that it has not acknowledged."""
        return bool(self._unacknowledged)

    def start(self) -> None:
        """Start the service upon what its file says."""
        self.runtime = ServiceRuntime(self._service, self._settings, self.way_out, clock=self._clock)
        # The engine outlives the crash, without any connection: it remembers nothing but how to compile statements,
        # which takes longer than all that a restart does.
        self.runtime.database = self._database = self._database or self.runtime.database
        starting = self._spawn(self.runtime.start())
        self._loop.settle()
        starting.result()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Have something else done in this process, which dies with it."""
        # An error goes to the loop's handler, and so to the test.
        self._spawn(coroutine).add_done_callback(lambda task: task.cancelled() or task.result())

    def deliver(self, parcel: Parcel, *, acknowledge: bool) -> None:
        """Hand a message to the service; it stays on the wire where its acknowledgement gets lost."""
        task = self._spawn(self.runtime.batcher.deliver(parcel.message))
        self._unacknowledged[task] = parcel
        task.add_done_callback(lambda task: self._settled(task, acknowledge=acknowledge))

    def kill(self) -> None:
        """End everything at once: no step ends well, and no transaction that is open is committed."""
        for _ in range(_ROUNDS):
            for task in list(self._tasks):
                task.cancel()
            self._loop.settle()
            if not self._tasks:
                break
        assert not self._tasks, f"these outlived the process: {list(self._tasks)}"
        self._loop.create_task(self.runtime.database.close())
        self._loop.settle()

    def _settled(self, task: asyncio.Task[None], *, acknowledge: bool) -> None:
        parcel = self._unacknowledged.pop(task)
        is_done = not task.cancelled() and not task.exception()
        if is_done:
            self._acknowledged(parcel)
        if not is_done or not acknowledge:
            self._wire.waiting.append(parcel)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(_tasks.set, self._tasks)
        return context.run(self._loop.create_task, coroutine)


def remember_owner(loop: asyncio.AbstractEventLoop, coroutine: Any, **facts: Any) -> asyncio.Task[Any]:
    """Make a task, as an event loop's task factory, and note whose it is."""
    task = asyncio.Task(coroutine, loop=loop, **facts)
    if (own := _tasks.get(None)) is not None:
        own[task] = None
        task.add_done_callback(own.pop)
    return task
