"""SQLite's files hold whole events: they are created for their owner alone; a file that others may read is reported."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from services.payment.gateway import open_gateway
from tests.conformance.world import settings_for
from tests.unit.runtime.test_sensitive_values import till
from toolkit.persistence.database import Database
from toolkit.transport.embedded import Embedded


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The usual mask, which lets others read new files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, str]:
    """Return the mode of each file in a directory."""
    return {each.name: oct(stat.S_IMODE(each.stat().st_mode)) for each in directory.iterdir()}


async def test_a_new_databases_files_are_its_owners_alone(tmp_path):
    place = tmp_path / "new" / "place"
    database = Database(f"sqlite:///{place / 'orders.db'}")
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (id TEXT)"))
        found = modes(place)
    await database.close()

    assert found == {"orders.db": "0o600", "orders.db-wal": "0o600", "orders.db-shm": "0o600"}
    assert [oct(stat.S_IMODE(each.stat().st_mode)) for each in (place, place.parent)] == ["0o700", "0o700"]


async def test_a_journal_is_its_owners_alone(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'orders.db'}")
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        await driver.execute("PRAGMA journal_mode=DELETE")
        await driver.execute("BEGIN IMMEDIATE")
        await driver.execute("CREATE TABLE orders (id TEXT)")
        found = modes(tmp_path)
        await driver.execute("ROLLBACK")
    await database.close()

    assert found["orders.db-journal"] == "0o600"


async def test_payments_ledger_is_its_owners_alone(tmp_path):
    async with open_gateway(settings_for(tmp_path)):
        assert set(modes(tmp_path).values()) == {"0o600"}


async def test_an_existing_directory_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    await Database(f"sqlite:///{tmp_path / 'orders.db'}").close()

    assert oct(stat.S_IMODE(tmp_path.stat().st_mode)) == "0o755"


async def test_a_file_readable_by_others_is_reported(tmp_path, capsys):
    settings = settings_for(tmp_path)
    async with Embedded([till(refusable=True)], settings):
        assert "others may read" not in capsys.readouterr().out
    file = settings.data_dir / "till.db"
    file.chmod(0o640)

    async with Embedded([till(refusable=True)], settings):
        output = capsys.readouterr().out

    assert "others may read the database's files" in output
    assert f"chmod 600 {file}" in output
    assert oct(stat.S_IMODE(file.stat().st_mode)) == "0o640"
