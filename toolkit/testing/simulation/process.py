"""One service's process: it can be killed between any two steps of the event loop, and restarted on the same file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextvars import ContextVar, copy_context
from typing import Any, NoReturn, TypeVar

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.testing.simulation.kept_database import KeptDatabase
from toolkit.testing.simulation.replaced import Replaced
from toolkit.testing.simulation.virtual_time import VirtualLoop
from toolkit.testing.simulation.wire import Exit, Parcel, Wire

T = TypeVar("T")

#: The tasks of a process in the order of their start; a set's order depends on addresses, which differ in each run.
Tasks = dict[asyncio.Task[Any], None]
#: The running process; a task that it starts belongs to it, too.
_running: ContextVar[Process] = ContextVar("running")
#: So many rounds of cancellation end tasks that wait for each other; a task that needs more ignores cancellation.
_ROUNDS = 10
#: So many turns of the event loop bring a statement or a publish onto the wire.
_TURNS = 20


class Process:
    """Runs one service's runtime; when it is killed, its unacknowledged deliveries return to the wire.

    - `crash_at`: the failpoint at which it kills itself, and how often it reaches that point, the last time included.
    - `is_dying`: it has killed itself; the simulation ends what is left of it, and restarts it.
    """

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
        database: KeptDatabase,
    ) -> None:
        self._service = service
        self._settings = settings
        self._wire = wire
        self.way_out = way_out
        self.clock = clock
        self._loop = loop
        self.tasks: Tasks = {}
        self._unacknowledged: dict[asyncio.Task[None], Parcel] = {}
        self._acknowledged = acknowledged
        self._database = database
        self.runtime: ServiceRuntime
        self.crash_at: tuple[str, int] | None = None
        self.is_dying = False

    @property
    def is_at_work(self) -> bool:
        """Whether it holds messages that it has not acknowledged."""
        return bool(self._unacknowledged)

    def start(self) -> None:
        """Start the service on its database file."""
        self.is_dying = False
        self.runtime = ServiceRuntime(
            self._service, self._settings, self.way_out, clock=self.clock, database=self._database
        )
        starting = self._spawn(self.runtime.start())
        self._loop.settle()
        if not self.is_dying:
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
            for task in list(self.tasks):
                task.cancel()
            self._loop.settle()
            if not self.tasks:
                break
        if self.tasks:
            raise AssertionError(f"these outlived the process: {list(self.tasks)}; let them end on a cancellation")
        self._loop.create_task(self.runtime.database.close())
        self._loop.settle()

    def is_due(self, point: str) -> bool:
        """Count down to the crash at this failpoint; return whether it is reached for the last time."""
        if self.crash_at is None or self.crash_at[0] != point:
            return False
        times = self.crash_at[1] - 1
        self.crash_at = (point, times) if times else None
        return not times

    def die(self) -> NoReturn:
        """End the running task here, and all others before they continue."""
        self.is_dying = True
        for task in list(self.tasks):
            task.cancel()
        raise asyncio.CancelledError

    def _settled(self, task: asyncio.Task[None], *, acknowledge: bool) -> None:
        parcel = self._unacknowledged.pop(task)
        is_done = not task.cancelled() and not task.exception()
        if is_done:
            self._acknowledged(parcel)
        if not is_done or not acknowledge:
            self._wire.waiting.append(parcel)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(_running.set, self)
        return context.run(self._loop.create_task, coroutine)


def remember_owner(loop: asyncio.AbstractEventLoop, coroutine: Any, **facts: Any) -> asyncio.Task[Any]:
    """Create a task, as an event loop's task factory, and add it to its process's tasks."""
    task = asyncio.Task(coroutine, loop=loop, **facts)
    if (own := _running.get(None)) is not None:
        own.tasks[task] = None
        task.add_done_callback(own.tasks.pop)
    return task


def _here(point: str, _: Iterable[str | None] = ()) -> None:
    """Replace `failpoints.here`: end the process of the simulation, and not the one that runs it."""
    if (process := _running.get(None)) and process.is_due(point):
        process.die()


async def _amid(point: str, doing: Coroutine[Any, Any, T], _: Iterable[str | None] = ()) -> T:
    """Replace `failpoints.amid`: start what is to be done, and end the process without its result."""
    if (process := _running.get(None)) and process.is_due(point):
        begun = asyncio.ensure_future(doing)
        for _turn in range(_TURNS):
            if not begun.done():
                await asyncio.sleep(0)
        process.die()
    return await doing


#: The block in which failpoints end processes of the simulation.
simulated_failpoints = Replaced((failpoints, "here", _here), (failpoints, "amid", _amid))
