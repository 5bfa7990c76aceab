"""A branch of the library whose clock the test sets."""

from __future__ import annotations

import pytest

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loans import NOON, Clerk, library
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


@pytest.fixture
def branch(database: Database, clerk: Clerk) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON))
