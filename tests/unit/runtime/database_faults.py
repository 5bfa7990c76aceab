"""Faults of a PostgreSQL database that a test causes from outside."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import make_url

from toolkit.persistence.database import Database


async def lock_out(database: Database) -> None:
    """End all connections to this PostgreSQL database, and refuse new ones."""
    await on_the_server(database, "ALLOW_CONNECTIONS false")


async def let_in(database: Database) -> None:
    """Accept connections again."""
    await on_the_server(database, "ALLOW_CONNECTIONS true")


async def on_the_server(database: Database, change: str) -> None:
    """Alter the database from another one of its server, and end all connections to it."""
    url = make_url(database.url)
    server = Database(url.set(database="postgres").render_as_string(hide_password=False))
    async with server.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f'ALTER DATABASE "{url.database}" {change}'))
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": url.database}
        )
    await server.close()


async def forbid_entries_of_loan_13(database: Database) -> None:
    """Let PostgreSQL refuse all log entries of this loan."""
    refuse = "CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no'; END $$ LANGUAGE plpgsql"
    trigger = (
        "CREATE TRIGGER unlucky BEFORE INSERT ON saga_log FOR EACH ROW"
        " WHEN (NEW.saga_id = 'loan-13') EXECUTE FUNCTION no()"
    )
    async with database.engine.begin() as connection:
        await connection.execute(text(refuse))
        await connection.execute(text(trigger))
