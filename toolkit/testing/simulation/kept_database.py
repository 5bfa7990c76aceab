"""A service's database whose engine outlives crashes and runs: what is kept are compiled statements, no connections.

Their compilation takes longer than all the rest of a restart.
"""

from __future__ import annotations

from sqlalchemy import MetaData, event

from toolkit.persistence.database import Database


class KeptDatabase(Database):
    """A database file at memory speed: a killed process loses nothing, a power cut may."""

    def __init__(self, url: str, *, has_tables: bool = False) -> None:
        super().__init__(url)
        self._has_tables = has_tables

        @event.listens_for(self.engine.sync_engine, "connect")
        def hurry(connection: object, _: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]  # a driver's connection has no class in common
            cursor.execute("PRAGMA synchronous=OFF")
            cursor.close()

    async def create_tables(self, *tables: MetaData, service: str = "SERVICE", may_create: bool = True) -> None:
        """Create the tables at the first start; no restart changes them."""
        if not self._has_tables:
            await super().create_tables(*tables, service=service, may_create=may_create)
            self._has_tables = True
