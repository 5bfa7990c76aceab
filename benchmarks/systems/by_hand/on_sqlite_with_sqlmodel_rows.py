"""The limit on SQLite that keeps a service's own rows in SQLModel: a row a step through an AsyncSession.

The session's connection is the thread's own, so its flush is part of the batch's one call to the thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable
from functools import partial
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.systems.by_hand.batch import Batch, Step
from benchmarks.systems.by_hand.on_sqlite import SqliteStore, write
from benchmarks.systems.by_hand.own_rows import Effect
from benchmarks.systems.by_hand.rabbitmq import run
from benchmarks.systems.process import work


class SessionStore(SqliteStore):
    """One file, the thread that writes to it, and an engine on the thread's connection."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)

        @event.listens_for(self._engine.sync_engine, "do_connect")
        def connect(*_: Any) -> sqlite3.Connection:
            return self._writing

    @classmethod
    async def open(cls, url: str) -> SessionStore:
        """Connect, and make sure of the tables."""
        store = cls(url.removeprefix("sqlite:///"))
        async with store._engine.connect():  # the first time, SQLAlchemy awaits something
            return store

    async def commit(self, batch: Batch) -> Container[str] | None:
        """Commit a batch, and return the emitted ids of the steps that were no duplicates; None if none was one."""
        session = AsyncSession(self._engine, expire_on_commit=False)
        rows = {
            step["emitted_id"]: Effect(order_id=step["saga_id"], amount=step["amount"])
            for step in batch.steps
            if step["amount"]
        }
        session.add_all(rows.values())

        def write_own(_: sqlite3.Connection, steps: Iterable[Step]) -> None:
            for duplicate in rows.keys() - {step["emitted_id"] for step in steps}:
                session.expunge(rows[duplicate])
            session.sync_session.flush()

        def write_all(connection: sqlite3.Connection) -> Container[str] | None:
            with session.sync_session:
                return write(connection, batch, write_own)

        return await self.do(write_all)


if __name__ == "__main__":
    work(partial(run, open_store=SessionStore.open))
