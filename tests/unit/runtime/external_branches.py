"""A replica of the library with an external step, and a call that the test ends."""

from __future__ import annotations

import asyncio

from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loans import Clerk, library
from toolkit import Event
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


class Call:
    """An external call that lasts until the test ends it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.was_cut_off = False

    async def __call__(self, _: Event, __: AsyncSession) -> None:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cut_off = True
            raise
        if self.error:
            raise self.error


def external_branch(clerk: Clerk, database: Database, clock: ManualClock | None = None, **facts: bool) -> Branch:
    """Return a replica of the library whose step is external."""
    return Branch(library(clerk, external=True, **facts), database, resources={Clerk: clerk}, clock=clock)
