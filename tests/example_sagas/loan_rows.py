"""The rows of a library's database: its outbox, its logs, its loans and its dead letters."""

from __future__ import annotations

from sqlalchemy import text

from toolkit.persistence import dead_letter_queries, outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.protocol.dead_letter_rows import WholeDeadLetter
from toolkit.protocol.log_entry import LogEntry


async def add_to_outbox(database: Database, *rows: OutboxRow) -> None:
    """Commit rows to the outbox."""
    async with database.transaction() as session:
        await outbox.add(await session.connection(), rows)


async def rows_left(database: Database) -> list[str]:
    """Return the saga ids of the outbox's rows."""
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT saga_id FROM saga_outbox ORDER BY saga_id"))).scalars())


async def log_of(database: Database, loan_id: str) -> list[LogEntry]:
    """Return a saga's log."""
    async with database.reading() as connection:
        return await saga_log_queries.entries(connection, saga_id=loan_id)


async def states(database: Database, loan_id: str) -> list[str]:
    """Return the states of the saga's steps, in order."""
    return [entry.to_state for entry in await log_of(database, loan_id) if entry.position]


async def notes(database: Database, loan_id: str) -> list[str]:
    """Return a saga's notes."""
    return [entry.to_state for entry in await log_of(database, loan_id) if not entry.position]


async def lent(database: Database) -> list[str]:
    """Return the saga ids of the loans that the steps wrote, with duplicates."""
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT loan_id FROM loans ORDER BY loan_id"))).scalars())


async def dead_letters_of(database: Database) -> list[WholeDeadLetter]:
    """Return the dead letters."""
    async with database.reading() as connection:
        return await dead_letter_queries.listed(connection)


async def rename(database: Database, old: str, new: str) -> None:
    """Rename a table, or rename it back: the fastest outage."""
    async with database.engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


async def terminate_other_connections(database: Database) -> None:
    """Let PostgreSQL terminate all other connections to this database."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    async with database.engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
