"""The embedded saga in a process of its own, with orders from a file: `python -m … DATA_DIR ORDERS.json [KILL_AT]`.

With KILL_AT it kills itself by SIGKILL once so many sagas have ended: a kill from outside may come after all of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from services.demo import SERVICES
from toolkit import Settings
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import saga_log_queries
from toolkit.transport.embedded import Embedded


async def run(data_dir: Path, orders: list[dict[str, object]], kill_at: int | None) -> None:
    async with Embedded(SERVICES, Settings(data_dir=data_dir)) as embedded:
        killing = asyncio.create_task(kill(embedded, kill_at)) if kill_at else None
        await asyncio.gather(
            *(embedded.publish(WireMessage(json.dumps(order).encode(), "order.OrderCreated")) for order in orders)
        )
        if killing:
            await killing
        if not await embedded.settled(120):
            sys.exit("not settled in time")


async def kill(embedded: Embedded, at: int) -> None:
    while True:
        async with embedded.runtimes["notification"].database.reading() as connection:
            if len(await saga_log_queries.sagas(connection, limit=at)) >= at:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    known = json.loads(Path(sys.argv[2]).read_text())
    asyncio.run(run(Path(sys.argv[1]), known, int(sys.argv[3]) if sys.argv[3:] else None))
