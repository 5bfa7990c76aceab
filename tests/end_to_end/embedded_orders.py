"""A process for a test to kill: the embedded saga, given orders from a file. `python -m … DATA_DIR ORDERS.json`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from services.demo import SERVICES
from toolkit import Settings
from toolkit.embedded import Embedded
from toolkit.envelope import WireMessage


async def run(data_dir: Path, orders: list[dict[str, object]]) -> None:
    async with Embedded(SERVICES, Settings(data_dir=data_dir)) as embedded:
        await asyncio.gather(
            *(embedded.publish(WireMessage(json.dumps(order).encode(), "order.OrderCreated")) for order in orders)
        )
        if not await embedded.settled(120):
            sys.exit("not settled in time")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())))
