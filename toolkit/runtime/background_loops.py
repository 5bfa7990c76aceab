"""The background loops of one service: a loop that ends by itself ends the service with an error.

Without its batcher or its relay a service answers probes and does no work; started again, it continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from toolkit.errors import LoopEndedError, describe
from toolkit.foreign_code.containment import contain

log = structlog.get_logger("toolkit")


class Loops:
    """Runs the loops of one service.

    - `ended`: the loops that ended by themselves, by name.
    - `on_end`: called when a loop does; the owner ends the service then.
    """

    def __init__(self, service: str) -> None:
        self.ended: dict[str, LoopEndedError] = {}
        self.on_end: Callable[[LoopEndedError], None] = lambda _: None
        self.tasks: list[asyncio.Task[None]] = []
        self._service = service
        self._may_end = False

    def begin(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Run a loop."""
        self.supervise(name, asyncio.create_task(contain(f"the loop {name}", loop), name=f"{name} of {self._service}"))

    def supervise(self, name: str, task: asyncio.Task[None]) -> None:
        """Notice the end of a loop that runs already."""
        self.tasks.append(task)
        task.add_done_callback(partial(self._notice, name))

    def let_end(self) -> None:
        """Let loops end from now on: the service is stopping."""
        self._may_end = True

    def _notice(self, name: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else _first(task.exception())
        if self._may_end:
            return
        fault = describe(error) if error else "it was cancelled" if task.cancelled() else "it returned"
        self.ended[name] = LoopEndedError(
            f"the loop {name} of {self._service} ended though nothing had stopped it: {fault}; "
            "start the service again, and look into its log for what came before"
        )
        self.on_end(self.ended[name])  # first, since it may be the log that fails
        log.error("background loop ended; the service can't go on", service=self._service, loop=name, error=fault)
        log.debug("the full traceback", exc_info=error)


def _first(error: BaseException | None) -> BaseException | None:
    """Return the first error, where a TaskGroup has wrapped it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
