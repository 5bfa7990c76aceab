"""A seed that is wrong ends the start with its cure; only an outage is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import MetaData, text
from sqlalchemy.exc import OperationalError
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import DeclarationError, Service
from toolkit.errors import SeedError
from toolkit.persistence.database import Database
from toolkit.runtime.seeding import run_seed


async def halls(session: AsyncSession) -> None:
    await (await session.connection()).execute(text("INSERT INTO hall (name) VALUES ('large')"))


async def misspelt(session: AsyncSession) -> None:
    await (await session.connection()).execute(text("INSRT INTO hall (name) VALUES ('large')"))


async def reads_a_file(session: AsyncSession) -> None:
    Path("/nowhere/halls.json").read_text()


async def divides(session: AsyncSession) -> None:
    1 / 0  # noqa: B018 -- any bug


async def is_cut_off(session: AsyncSession) -> None:
    raise ConnectionResetError


async def seeded(seed, database: Database) -> None:
    service = Service(name="venue", seed=seed)
    await run_seed(service, database, is_worth_waiting=lambda error: isinstance(error, OSError | OperationalError))


async def test_a_seed_without_its_table_has_a_cure(database: Database):
    await database.create_tables(MetaData())

    with pytest.raises(DeclarationError) as raised:
        await seeded(halls, database)

    assert raised.value.function == "Service 'venue'"
    assert raised.value.fault == "its seed halls uses the table hall, which does not exist"
    assert raised.value.cure.startswith("Pass Service(tables=…)")


@pytest.mark.parametrize("seed", [misspelt, reads_a_file, divides])
async def test_a_wrong_seed_names_service_and_line(database: Database, seed):
    await database.create_tables(MetaData())

    with pytest.raises(SeedError, match=rf"the seed {seed.__name__} of the service venue failed at {__file__}:\d+: "):
        await seeded(seed, database)


async def test_an_outage_within_a_seed_passes(database: Database):
    with pytest.raises(ConnectionResetError):
        await seeded(is_cut_off, database)
