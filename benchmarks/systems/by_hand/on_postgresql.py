"""The limit on PostgreSQL: one statement a batch, in one round trip, which is a transaction by itself."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from datetime import timedelta
from functools import partial

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from benchmarks.bulk_amqp import Outgoing
from benchmarks.systems.by_hand.batch import Batch
from benchmarks.systems.by_hand.rabbitmq import run
from benchmarks.systems.process import work

TABLES = """
CREATE TABLE IF NOT EXISTS saga_log (
    saga_id text, step text, position int, state text, event_id text, emitted_id text, emitted_type text, body text,
    at timestamptz, PRIMARY KEY (saga_id, step, position)
);
CREATE TABLE IF NOT EXISTS effect (id bigserial PRIMARY KEY, order_id text, amount int);
CREATE TABLE IF NOT EXISTS outbox (id text PRIMARY KEY, key text, body text, at timestamptz DEFAULT now());
"""
#: The log and the outbox of a batch's steps, the event that closes what ends in it, the sagas that another event
#: closes, and the confirmed rows to delete. A step that the log has already, a duplicate, writes nothing.
_TOOLKIT_ROWS = """
WITH step AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1) AS step (
        saga_id text, step text, position int, state text, event_id text, emitted_id text, emitted_type text,
        body text, amount int
    )
), fresh AS (
    INSERT INTO saga_log
    SELECT saga_id, step, position, state, event_id, emitted_id, emitted_type, body, now() FROM step
    ON CONFLICT DO NOTHING RETURNING emitted_id
), sent AS (
    INSERT INTO outbox (id, key, body) SELECT emitted_id, emitted_type, body FROM step JOIN fresh USING (emitted_id)
), closing AS (
    INSERT INTO outbox (id, key, body)
    SELECT * FROM json_to_recordset($2) AS closing (message_id text, routing_key text, body text)
), closed AS (
    INSERT INTO saga_log
    SELECT saga_id, step, position + 1, 'confirmed', $4, NULL, NULL, NULL, now() FROM saga_log
    WHERE saga_id = ANY(ARRAY(SELECT json_array_elements_text($3))) AND state = 'completed' ON CONFLICT DO NOTHING
), deleted AS (
    DELETE FROM outbox WHERE id = ANY(ARRAY(SELECT json_array_elements_text($5)))
)
"""
BATCH = f"{_TOOLKIT_ROWS} SELECT emitted_id FROM fresh"
BATCH_WITH_OWN_ROWS = f"""
{_TOOLKIT_ROWS}, own AS (
    INSERT INTO effect (order_id, amount)
    SELECT saga_id, amount FROM step JOIN fresh USING (emitted_id) WHERE amount <> 0
)
SELECT emitted_id FROM fresh
"""
_UNSENT = "SELECT id, key, body FROM outbox WHERE at <= now() - $1::interval ORDER BY at"


class PostgresStore:
    """One connection for the batches, and one for the looks."""

    def __init__(self, statement: PreparedStatement, looking: asyncpg.Connection) -> None:
        self._statement, self._looking = statement, looking

    @classmethod
    async def open(cls, url: str) -> PostgresStore:
        """Connect, and make sure of the tables."""
        writing, looking = await asyncpg.connect(url), await asyncpg.connect(url)
        await writing.execute(TABLES)
        return cls(await writing.prepare(BATCH_WITH_OWN_ROWS), looking)

    async def commit(self, batch: Batch) -> Container[str] | None:
        """Commit a batch, and return the emitted ids of the steps that were no duplicates; None if none was one."""
        return fresh_of(batch, await self._statement.fetch(*parameters(batch)))

    async def unsent(self, age: float) -> Sequence[Outgoing]:
        """Return the outbox rows that have this age, in seconds, or a higher one."""
        return await unsent(self._looking, age)


def parameters(batch: Batch) -> tuple[str, str, str, str, str]:
    """Return the parameters of a batch's statement; a list is one text."""
    closing = [{"message_id": each[0], "routing_key": each[1], "body": each[2].decode()} for each in batch.closing]
    lists = (batch.steps, closing, batch.ended)
    steps, closed, ended = (json.dumps(each) if each else "[]" for each in lists)
    return steps, closed, ended, batch.ended_by, json.dumps(batch.confirmed) if batch.confirmed else "[]"


def fresh_of(batch: Batch, rows: Sequence[asyncpg.Record]) -> Container[str] | None:
    """Return the ids in these rows; None if they are all of the batch's."""
    return None if len(rows) == len(batch.steps) else {row[0] for row in rows}


async def unsent(connection: asyncpg.Connection, age: float) -> list[Outgoing]:
    """Return the outbox rows that have this age, in seconds, or a higher one."""
    rows = await connection.fetch(_UNSENT, timedelta(seconds=age))
    return [Outgoing(row["id"], row["key"], row["body"].encode()) for row in rows]


if __name__ == "__main__":
    work(partial(run, open_store=PostgresStore.open))
