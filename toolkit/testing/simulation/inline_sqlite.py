"""SQLite's driver without its threads: the same statements on the same files, executed in the caller's thread.

A thread answers at an arbitrary time, which makes each run different, and two thread switches cost more than a
statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import aiosqlite.core

from toolkit.persistence import sqlite_connection
from toolkit.testing.simulation.replaced import Replaced


@contextmanager
def inline_sqlite() -> Iterator[None]:
    """Let connections that are opened within the block work in the caller's thread."""
    with _INLINE:
        yield


#: Of what runs in place of the driver's thread; no thread has this number.
_DRIVERS = -1


def _ident() -> int:
    """Return the number of the thread that would run here."""
    return _DRIVERS if _DoneAtOnce.depth else get_ident()


class _DoneAtOnce:
    """Replaces the queue of statements to the driver's thread; `depth` counts those that are being executed."""

    depth = 0

    def put_nowait(self, order: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        """Execute a statement."""
        future, statement = order
        _DoneAtOnce.depth += 1
        try:
            result = statement()
        except BaseException as error:  # noqa: BLE001 -- as the driver's thread does: the future's awaiter receives it
            if future:
                future.set_exception(error)
        else:
            if future:
                future.set_result(result)
        finally:
            _DoneAtOnce.depth -= 1


class _NoThread:
    """Replaces the driver's thread."""

    def __init__(self, **_: Any) -> None:
        self.daemon = True

    def start(self) -> None:
        """Start nothing."""


_INLINE = Replaced(
    (aiosqlite.core, "SimpleQueue", _DoneAtOnce),
    (aiosqlite.core, "Thread", _NoThread),
    (sqlite_connection, "get_ident", _ident),
)
