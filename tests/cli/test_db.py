"""`saga db`: the version of the toolkit's tables is shown, upgraded, and printed as SQL."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.conftest import PostgresDatabases
from tests.former_tables import create_first_tables
from toolkit.persistence.database import Database

FORMER = "saga_log", "outbox", "audit"


@pytest.fixture
def former(data_dir: Path) -> Path:
    """The payment's file, as a release without versions left it."""
    asyncio.run(with_database(f"sqlite:///{data_dir}/payment.db", create_first_tables))
    return data_dir / "payment.db"


async def with_database(url: str, work: Callable) -> None:
    database = Database(url)
    await work(database)
    await database.close()


def tables_of(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_service_names_the_command_that_mends_its_tables(saga_process, former, environment):
    refused = saga_process("run", "payment", **environment)

    assert refused.returncode == 2
    assert "and run `saga db upgrade payment`" in refused.stderr
    assert set(FORMER) <= tables_of(former)


def test_an_upgrade_gives_the_tables_their_prefix(saga, former):
    shown = json.loads(saga("db", "current", "payment", "-o", "json").stdout)
    assert [(each["version"], each["needed"], each["state"]) for each in shown] == [("0001", "0002", "outdated")]

    result = saga("db", "upgrade", "payment", "-o", "json")

    assert result.exit_code == 0, result.output
    assert [(each["before"], each["now"]) for each in json.loads(result.stdout)] == [("0001", "0002")]
    assert {"saga_log", "saga_outbox", "saga_audit"} <= tables_of(former)
    assert not {"outbox", "audit"} & tables_of(former)
    assert saga("db", "current", "payment").exit_code == 0


def test_an_upgrade_creates_the_tables_of_a_declared_service(saga, data_dir):
    result = saga("db", "upgrade", "payment", "shipping", "-o", "json")

    assert [each["before"] for each in json.loads(result.stdout)] == [None, None]
    assert "saga_outbox" in tables_of(data_dir / "shipping.db")


def test_a_database_without_tables_ends_current_with_one(saga, data_dir):
    data_dir.mkdir()
    (data_dir / "payment.db").touch()

    result = saga("db", "current", "payment", "-o", "json")

    assert (result.exit_code, json.loads(result.stdout)[0]["state"]) == (1, "missing")


def test_the_printed_sql_does_what_an_upgrade_does(saga, former, tmp_path):
    printed = saga("db", "sql", "payment", "--from", "0001").stdout
    created = saga("db", "sql", "payment").stdout
    with closing(sqlite3.connect(former)) as connection:
        connection.executescript(printed)
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        connection.executescript(created)

    assert tables_of(former) - {"sqlite_sequence"} == tables_of(tmp_path / "new.db") - {"sqlite_sequence"}
    for path in (former, tmp_path / "new.db"):
        assert saga("db", "current", "payment", f"--service=payment=sqlite:///{path}").exit_code == 0


def test_the_sql_for_postgresql_is_executed_by_an_administrator(saga, kept_databases, monkeypatch):
    async def execute(database: Database) -> None:
        async with database.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.execute(printed)

    url = asyncio.run(emptied(kept_databases))
    monkeypatch.setenv("SAGA_DATABASE_URL", url)
    printed = saga("db", "sql", "payment").stdout
    asyncio.run(with_database(url, execute))

    assert saga("db", "current", "payment").exit_code == 0
    asyncio.run(with_database(url, lambda database: database.create_tables(may_create=False)))


def test_a_login_without_the_right_is_named_with_the_cure(saga, kept_databases, monkeypatch):
    async def forbid(database: Database) -> None:
        async with database.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.execute("DROP ROLE IF EXISTS visitor; CREATE ROLE visitor LOGIN PASSWORD 'visitor'")

    url = asyncio.run(emptied(kept_databases))
    asyncio.run(with_database(url, forbid))
    of_visitor = make_url(url).set(username="visitor", password="visitor").render_as_string(hide_password=False)
    monkeypatch.setenv("SAGA_DATABASE_URL", of_visitor)

    result = saga("db", "upgrade", "payment")

    assert result.exit_code == 2
    assert "stay as they are" in result.stderr
    assert "name a login in the URL that owns the tables and may create others" in result.stderr


async def emptied(databases: PostgresDatabases) -> str:
    url = await databases.url("versions")
    await databases.empty()
    return url


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("upgrade", "paymnet"), "there is no service 'paymnet'"),
        (("upgrade", "stock", "--service", "payment=sqlite:///payment.db"), "there is no service stock"),
        (("current", "payment", "--service", "payment=http://127.0.0.1:1"), "name the database, for example"),
        (("sql", "payment", "--from", "7"), "there is no version '7' of the tables; there are: 0001, 0002"),
        (("upgrade",), "Missing argument"),
    ],
)
def test_wrong_use_is_named_with_its_cure(saga, data_dir, arguments, fault):
    result = saga("db", *arguments)

    assert result.exit_code == 2
    assert fault in result.stderr


def test_a_database_that_is_away_ends_with_three(saga, data_dir, monkeypatch):
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")

    result = saga("db", "upgrade", "payment")

    assert result.exit_code == 3
    assert "can't be reached" in result.stderr
