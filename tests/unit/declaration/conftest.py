"""The waiter, a participant of a visit's saga."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.declaration.visits import (
    TableKept,
    TableRefused,
    TableWanted,
    visit_saga,
)
from toolkit import Participant


@pytest.fixture
def waiter() -> Participant:
    return Participant("waiter", saga=visit_saga)


@pytest.fixture
def keep_table(waiter: Participant) -> Callable:
    """A step of the waiter."""

    @waiter.step()
    async def keep_table(event: TableWanted) -> TableKept | TableRefused: ...

    return keep_table
