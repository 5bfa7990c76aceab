"""A thread of its own for a world: pytest's may run an event loop already, and two loops can't share a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class WorkerThread:
    """Runs functions one after the other in one thread; the caller waits for each."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call the function, and return what it returns or raise what it raises."""
        call = partial(function, *arguments, **options)
        return self._executor.submit(copy_context().run, call).result()

    def stop(self) -> None:
        """End the thread."""
        self._executor.shutdown()
