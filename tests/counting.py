"""Count tasks, writes to a socket, and changes to SQLite's threads: what a message costs on any machine."""

from __future__ import annotations

import asyncio
from asyncio import selector_events
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiosqlite.core


@contextmanager
def counted_tasks() -> Iterator[list[str]]:
    """Record the tasks that begin within the block, by the names of their coroutines."""
    loop = asyncio.get_running_loop()
    before, begun = loop.get_task_factory(), list[str]()

    def begin(loop: asyncio.AbstractEventLoop, coroutine: Any, **facts: Any) -> asyncio.Task[Any]:
        begun.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **facts)

    loop.set_task_factory(begin)
    try:
        yield begun
    finally:
        loop.set_task_factory(before)


@contextmanager
def counted_writes(url: str) -> Iterator[list[int]]:
    """Record the sizes of the writes within the block to the server of this URL."""
    transport: Any = selector_events._SelectorSocketTransport
    write, sizes, port = transport.write, list[int](), urlsplit(url).port

    def record(self: Any, data: bytes) -> None:
        if self.get_extra_info("peername")[1] == port:
            sizes.append(len(data))
        write(self, data)

    transport.write = record
    try:
        yield sizes
    finally:
        transport.write = write


@contextmanager
def counted_thread_changes() -> Iterator[list[Any]]:
    """Record the functions that are executed within the block in the threads of SQLite's connections."""
    execute, executed = aiosqlite.core.Connection._execute, list[Any]()

    async def record(self: aiosqlite.core.Connection, function: Any, *arguments: Any, **options: Any) -> Any:
        executed.append(function)
        return await execute(self, function, *arguments, **options)

    aiosqlite.core.Connection._execute = record  # type: ignore[method-assign]
    try:
        yield executed
    finally:
        aiosqlite.core.Connection._execute = execute  # type: ignore[method-assign]
