"""One service's process: it can be killed between any two steps of the event loop, and restarted on the same file."""

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

#: The tasks of a process in the order of their start; a set's order depends on addresses, which differ in each run.
Tasks = dict[asyncio.Task[Any], None]
#: The tasks of the running process; a task that it starts belongs to it, too.
_tasks: ContextVar[Tasks] = ContextVar("tasks")
#: So many rounds of cancellation end tasks that wait for each other; a task that needs more ignores cancellation.
_ROUNDS = 10


class Process:
    """Runs one service's runtime; when it is killed, its unacknowledged deliveries return to the wire."""

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
        """Start the service on its database file."""
        self.runtime = ServiceRuntime(self._service, self._settings, self.way_out, clock=self._clock)
        # The engine outlives the crash, without connections: it keeps only compiled statements, whose compilation takes
        # longer than the rest of a restart.
        self.runtime.database = self._database = self._database or self.runtime.database
        starting = self._spawn(self.runtime.start())
        self._loop.settle()
        starting.result()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in this process; it ends with the process."""
        # An error goes to the loop's handler, and so to the test.
        self._spawn(coroutine).add_done_callback(lambda task: task.cancelled() or task.result())

    def deliver(self, parcel: Parcel, *, acknowledge: bool) -> None:
        """Deliver a message to the service; without `acknowledge` it returns to the wire, as after a lost one."""
        task = self._spawn(self.runtime.batcher.deliver(parcel.message))
        self._unacknowledged[task] = parcel
        task.add_done_callback(lambda task: self._settled(task, acknowledge=acknowledge))

    def kill(self) -> None:
        """Cancel all tasks at once: no running step completes, and no open transaction is committed."""
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
    """Create a task, as an event loop's task factory, and add it to its process's tasks."""
    task = asyncio.Task(coroutine, loop=loop, **facts)
    if (own := _tasks.get(None)) is not None:
        own[task] = None
        task.add_done_callback(own.pop)
    return task
