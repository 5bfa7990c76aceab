"""Entries of the saga log for tests: how they are made, appended, read as streams and closed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.example_sagas.loans import NOON
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.saga_ends import close_sagas, ends_of
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import Stream, read_streams
from toolkit.protocol.keys import StreamKey


def entry(loan_id: str = "loan-1", to: str = "completed", position: int | None = 1, **facts: Any) -> Entry:
    known: dict[str, Any] = {
        "service": "library",
        "saga_id": loan_id,
        "saga_type": "loan",
        "step": "lend_book",
        "position": position,
        "from_state": None,
        "to_state": to,
        "saga_state": SagaState.STARTED,
        "event_id": "event-1",
        "event_type": "BookWanted",
        "at": NOON,
    }
    return Entry(**(known | facts))


async def append(database: Database, *entries: Entry) -> None:
    async with database.transaction() as session:
        await saga_log.append(await session.connection(), entries)


async def streams(database: Database, *loan_ids: str) -> dict[StreamKey, Stream]:
    async with database.reading() as connection:
        return await read_streams(connection, loan_ids)


async def close(database: Database, *, completed: tuple[str, ...] = (), failed: tuple[str, ...] = ()) -> None:
    ended = SagaEnded(saga_type="loan", completed=completed, failed=failed)
    async with database.transaction() as session:
        ends = ends_of([("the end", ended)], at=NOON + timedelta(minutes=1))
        await close_sagas(await session.connection(), ends)
