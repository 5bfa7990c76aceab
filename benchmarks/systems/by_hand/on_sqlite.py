"""The limit on SQLite: one writer thread a service, one transaction and one call to the thread a batch."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from queue import SimpleQueue

from benchmarks.bulk_amqp import Outgoing
from benchmarks.systems.by_hand.batch import Batch, Step
from benchmarks.systems.by_hand.rabbitmq import run
from benchmarks.systems.process import work

_SETTINGS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000;"
_TABLES = """
CREATE TABLE IF NOT EXISTS saga_log (
    saga_id TEXT, step TEXT, position INTEGER, state TEXT, event_id TEXT, emitted_id TEXT, emitted_type TEXT,
    body TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (saga_id, step, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS effect (id INTEGER PRIMARY KEY, order_id TEXT, amount INTEGER);
CREATE TABLE IF NOT EXISTS outbox (id TEXT PRIMARY KEY, key TEXT, body TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP);
"""
_LOG = """
INSERT OR IGNORE INTO saga_log (saga_id, step, position, state, event_id, emitted_id, emitted_type, body)
VALUES (:saga_id, :step, :position, :state, :event_id, :emitted_id, :emitted_type, :body)
"""
_OWN = "INSERT INTO effect (order_id, amount) VALUES (:saga_id, :amount)"
_SENT = "INSERT INTO outbox (id, key, body) VALUES (:emitted_id, :emitted_type, :body)"
_CLOSING = "INSERT INTO outbox (id, key, body) VALUES (?, ?, ?)"
_CLOSED = """
INSERT OR IGNORE INTO saga_log (saga_id, step, position, state, event_id)
SELECT saga_id, step, position + 1, 'confirmed', ? FROM saga_log WHERE saga_id = ? AND state = 'completed'
"""
_DELETE = "DELETE FROM outbox WHERE id = ?"
_UNSENT = "SELECT id, key, body FROM outbox WHERE at <= datetime('now', ?) ORDER BY at"


#: What the thread does with its connection.
Job = Callable[[sqlite3.Connection], Container[str] | None]


class SqliteStore:
    """One file, and the thread that writes to it."""

    def __init__(self, file: str) -> None:
        self._jobs: SimpleQueue[tuple[Job, asyncio.Future[Container[str] | None]]] = SimpleQueue()
        self._looking, self._writing = _connect(file), _connect(file)
        self._looking.executescript(_TABLES)
        threading.Thread(target=self._work, args=[asyncio.get_running_loop()], daemon=True).start()

    @classmethod
    async def open(cls, url: str) -> SqliteStore:
        """Connect, and make sure of the tables."""
        return cls(url.removeprefix("sqlite:///"))

    async def commit(self, batch: Batch) -> Container[str] | None:
        """Commit a batch, and return the emitted ids of the steps that were no duplicates; None if none was one."""
        return await self.do(partial(write, batch=batch, write_own=_write_own))

    async def do(self, job: Job) -> Container[str] | None:
        """Do something in the thread."""
        done: asyncio.Future[Container[str] | None] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, done))
        return await done

    async def unsent(self, age: float) -> Sequence[Outgoing]:
        """Return the outbox rows that have this age, in seconds, or a higher one."""
        rows = self._looking.execute(_UNSENT, [f"-{age} seconds"])
        return [Outgoing(name, key, body.encode()) for name, key, body in rows]

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            job, done = self._jobs.get()
            try:
                loop.call_soon_threadsafe(_resolve, done, job(self._writing))
            except Exception as error:  # noqa: BLE001 -- it is raised where the job is awaited
                loop.call_soon_threadsafe(_fail, done, error)


def _resolve(done: asyncio.Future[Container[str] | None], fresh: Container[str] | None) -> None:
    if not done.done():  # cancelled, if the loop stops
        done.set_result(fresh)


def _fail(done: asyncio.Future[Container[str] | None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _connect(file: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.executescript(_SETTINGS)
    return connection


def write(
    connection: sqlite3.Connection, batch: Batch, write_own: Callable[[sqlite3.Connection, Sequence[Step]], None]
) -> Container[str] | None:
    """Commit a batch whose own rows are written by a function; return what `commit` does."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        fresh = _fresh(connection, batch)
        steps = batch.steps if fresh is None else [each for each in batch.steps if each["emitted_id"] in fresh]
        write_own(connection, steps)
        connection.executemany(_SENT, steps)
        connection.executemany(_CLOSING, [(each[0], each[1], each[2].decode()) for each in batch.closing])
        connection.executemany(_CLOSED, [(batch.ended_by, each) for each in batch.ended])
        connection.executemany(_DELETE, [(each,) for each in batch.confirmed])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return fresh


def _write_own(connection: sqlite3.Connection, steps: Iterable[Step]) -> None:
    connection.executemany(_OWN, [each for each in steps if each["amount"]])


def _fresh(connection: sqlite3.Connection, batch: Batch) -> Container[str] | None:
    """Write the steps' entries, and return the emitted ids of those that the log did not have; None for all of them."""
    if connection.executemany(_LOG, batch.steps).rowcount in {len(batch.steps), -1}:
        return None
    emitted = [each["emitted_id"] for each in batch.steps]
    query = "SELECT emitted_id FROM saga_log WHERE saga_id = ? AND emitted_id = ?"
    sagas = [each["saga_id"] for each in batch.steps]
    return {
        each for saga, each in zip(sagas, emitted, strict=True) if connection.execute(query, (saga, each)).fetchone()
    }


if __name__ == "__main__":
    work(partial(run, open_store=SqliteStore.open))
