"""Databases of the doctor's tests, and how they misconfigure them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg

from services.payment.app import app as payment
from tests.conftest import PostgresDatabases
from toolkit.declaration.service import Service
from toolkit.persistence.database import Database


async def make_tables(url: str, service: Service) -> None:
    database = Database(url)
    await database.create_tables(*([service.tables] if service.tables else []))
    await database.close()


def execute(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def spoilt(databases: PostgresDatabases, statements: str) -> str:
    """Return the URL of payment's database with fresh tables, in which these statements were executed."""

    async def make() -> str:
        url = await databases.url("payment")
        await databases.empty()
        await make_tables(url, payment)
        return url

    url = asyncio.run(make())
    execute_at(url, statements)
    return url


def execute_at(url: str, statements: str) -> None:
    """Execute these statements in a database; {} is its name."""

    async def execute() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statements.replace("{}", url.rpartition("/")[2]))
        await connection.close()

    asyncio.run(execute())
