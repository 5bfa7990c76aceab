"""A shop whose service runs on the test's database, and the shop's own sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.example_sagas.library_branch import RecordingPublisher
from tests.unit.embedding.shop import Sessions, running, sessions, shop
from toolkit.persistence.database import Database


@pytest.fixture
async def sent(database: Database) -> AsyncIterator[RecordingPublisher]:
    """What the shop's service sends; only a commit wakes its relay."""
    publisher = RecordingPublisher()
    async with running(shop(), database, publisher):
        yield publisher


@pytest.fixture
async def team(database: Database) -> AsyncIterator[Sessions]:
    """The shop's own sessions."""
    async with sessions(database) as made:
        yield made
