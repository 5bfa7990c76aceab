"""A process of the shop that starts a saga in its own transaction, and dies right after the commit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from tests.unit.embedding.shop import Order, OrderPlaced, sessions
from toolkit import start
from toolkit.persistence.database import Database


async def main(url: str) -> None:
    async with sessions(Database(url)) as made, made() as session:
        session.add(Order(id="order-1"))
        await start(session, OrderPlaced(order_id="order-1"))
        await session.commit()
        os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(main(sys.argv[1]))
