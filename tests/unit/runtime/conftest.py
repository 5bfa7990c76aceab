"""Fixtures of the runtime's tests: a clock, a publisher, and replicas of the library."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.example_sagas.library_branch import Branch, RecordingPublisher
from tests.example_sagas.loans import NOON, Clerk, library
from tests.unit.runtime.copies import Counter, open_copies_branch
from toolkit import Service
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def publisher() -> RecordingPublisher:
    return RecordingPublisher()


@pytest.fixture
def service(clerk: Clerk) -> Service:
    return library(clerk)


@pytest.fixture
def branch(service: Service, database: Database, clerk: Clerk, clock: ManualClock) -> Branch:
    """A replica that executes messages when a test calls it, on the test's clock."""
    return Branch(service, database, resources={Clerk: clerk}, clock=clock)


@pytest.fixture
async def running_branch(service: Service, database: Database, clerk: Clerk) -> AsyncIterator[Branch]:
    """A replica whose batcher runs, on the system's clock."""
    one = Branch(service, database, resources={Clerk: clerk})
    async with one.open():
        yield one


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
async def copies_branch(database: Database, counter: Counter) -> Branch:
    return await open_copies_branch(database, counter)
