"""A branch of the library whose clock the test sets."""

from __future__ import annotations

import pytest

from tests.example_sagas.loans import (
    Branch,
    Clerk,
    HandClock,
    library,
)
from toolkit.persistence.database import Database


@pytest.fixture
def branch(database: Database, clerk: Clerk) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=HandClock())
