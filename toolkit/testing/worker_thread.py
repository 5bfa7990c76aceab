"""A thread of its own for a world: pytest's may run an event loop already, and two loops can't share a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class WorkerThread:
    """Runs functions one after the other in one thread; the caller waits for each."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._last: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        """Return the thread."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self.stop()

    def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call the function, and return what it returns or raise what it raises."""
        call = partial(function, *arguments, **options)
        return self._executor.submit(copy_context().run, call).result()

    def at_end(self, function: Callable[[], None]) -> None:
        """Let a function be called in the thread before it ends."""
        self._last.append(function)

    def stop(self) -> None:
        """End the thread."""
        try:
            for function in self._last:
                self.run(function)
        finally:
            self._executor.shutdown()
