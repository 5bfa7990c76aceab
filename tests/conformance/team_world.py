"""The trip's services, each on an engine of a team's own, with the toolkit's tables in a schema."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.conformance.world import RabbitWorld
from tests.pooler import UNNAMED
from toolkit.app import App

SCHEMA = "workflow"


class TeamWorld(RabbitWorld):
    """RabbitMQ, and PostgreSQL by a team's engines, directly or through a pooler."""

    is_pooled = False
    engines: list[AsyncEngine]

    async def start(self) -> None:
        self.engines = []
        await super().start()

    async def app(self, name: str) -> App:
        service = next(each for each in self.services if each.name == name)
        url = str(await self._database_of(name)).replace("postgresql:", "postgresql+asyncpg:")
        engine = create_async_engine(url, connect_args=UNNAMED if self.is_pooled else {})
        self.engines.append(engine)
        return App(service, self.settings.model_copy(update={"database_schema": SCHEMA}), engine=engine)

    async def stop(self) -> None:
        await super().stop()
        for engine in self.engines:  # the services have left them open
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
            await engine.dispose()
