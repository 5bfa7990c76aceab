"""An event loop in a thread of its own, for tests that drive a browser, whose calls wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Background:
    """Runs coroutines while the test's own thread waits for what they return."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def start(self, doing: Coroutine[Any, Any, T]) -> Future[T]:
        """Let the coroutine run."""
        return asyncio.run_coroutine_threadsafe(doing, self._loop)

    def run(self, doing: Coroutine[Any, Any, T], *, within: float = 120) -> T:
        """Return what the coroutine returns."""
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(within)
