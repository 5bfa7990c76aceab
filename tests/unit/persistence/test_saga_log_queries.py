"""Queries of the saga log list its newest entries and its sagas."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.persistence.saga_entries import append, entry
from toolkit.declaration.events import SagaState
from toolkit.persistence import saga_log_queries
from toolkit.persistence.database import Database


async def test_readers_see_the_newest_entries_in_their_order(database: Database) -> None:
    await append(database, *(entry(f"loan-{number}") for number in range(5)))

    async with database.reading() as connection:
        newest = await saga_log_queries.entries(connection, limit=2)

    assert [each.saga_id for each in newest] == ["loan-3", "loan-4"]


async def test_sagas_are_listed_by_last_move_and_state(database: Database) -> None:
    await append(database, entry("loan-1"), entry("loan-2"))
    await append(database, replace(entry("loan-1", "compensated", 2), saga_state=SagaState.COMPENSATING))

    async with database.reading() as connection:
        everything = await saga_log_queries.sagas(connection)
        compensating = await saga_log_queries.sagas(connection, state=SagaState.COMPENSATING)
        newest = await saga_log_queries.sagas(connection, limit=1)

    assert [(each.saga_id, each.state) for each in everything] == [
        ("loan-1", "Compensating"),
        ("loan-2", "Started"),
    ]
    assert [each.saga_id for each in compensating] == ["loan-1"]
    assert [each.saga_id for each in newest] == ["loan-1"]
