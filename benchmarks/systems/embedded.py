"""The toolkit without a broker: all services in this process, which is its own client, a SQLite file each.

It reads a load a line from its standard input, and answers each with what came of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.client import Client
from benchmarks.saga import ENDS, START
from benchmarks.systems.by_toolkit import SERVICES
from benchmarks.systems.process import Asked, work
from toolkit import Settings
from toolkit.messaging.envelope import WireMessage
from toolkit.observability.logs import configure_logs
from toolkit.transport.embedded import Embedded


class Overheard(Embedded):
    """The embedded saga, whose client hears what ends an order as it is published."""

    client: Client

    async def publish(self, message: WireMessage, *, destination: str | None = None) -> None:
        """Publish, and tell the client."""
        if message.routing_key in ENDS:
            self.client.consume(message.body)
        await super().publish(message, destination=destination)


async def run(asked: Asked, stopped: asyncio.Event) -> None:
    """Work off loads until told to stop."""
    directory = Path(next(iter(asked.databases.values())).removeprefix("sqlite:///")).parent
    settings = Settings(data_dir=directory, log_level="error")
    configure_logs(settings)
    loads: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: loads.put_nowait(sys.stdin.readline()))
    async with Overheard(list(SERVICES.values()), settings) as embedded:
        embedded.client = Client(lambda order_id, body: embedded.publish(WireMessage(body, START, message_id=order_id)))
        print("ready", flush=True)
        stopping = asyncio.create_task(stopped.wait())
        while True:
            asking = asyncio.create_task(loads.get())
            await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return
            load = await embedded.client.place(**json.loads(asking.result()))
            print(json.dumps(asdict(load)), flush=True)


if __name__ == "__main__":
    work(run)
