"""The toolkit without a broker: all services in this process, which is its own client, a SQLite file each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bulk_amqp import Outgoing
from benchmarks.client import PATIENCE, answer
from benchmarks.load import Case, Load, Orders
from benchmarks.saga import ENDS
from benchmarks.systems.by_toolkit import SERVICES
from benchmarks.systems.process import Assignment, work
from toolkit import Settings
from toolkit.messaging.envelope import WireMessage
from toolkit.observability.logs import configure_logs
from toolkit.transport.embedded import Embedded


class ClientsEmbedded(Embedded):
    """The embedded saga, whose client gets what ends an order as it is published."""

    orders: Orders | None = None

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        """Publish, and hand the ends to the client."""
        if self.orders and (ends := [message.body for message, _ in messages if message.routing_key in ENDS]):
            self.orders.end(ends)
        return await super().publish_many(messages)


async def run(assignment: Assignment, stopped: asyncio.Event) -> None:
    """Place the loads that the input brings until it ends."""
    directory = Path(next(iter(assignment.databases.values())).removeprefix("sqlite:///")).parent
    settings = Settings(data_dir=directory, log_level="error")
    configure_logs(settings)
    async with ClientsEmbedded(list(SERVICES.values()), settings) as embedded, asyncio.TaskGroup() as publishing:

        def publish(messages: list[Outgoing]) -> None:
            burst = [(WireMessage(body, key, message_id=message_id), None) for message_id, key, body in messages]
            publishing.create_task(embedded.publish_many(burst))

        async def place(case: Case) -> Load:
            embedded.orders = Orders(case, publish)
            return await embedded.orders.place(patience=PATIENCE)

        answering = asyncio.create_task(answer(place))
        await asyncio.wait({answering, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()


if __name__ == "__main__":
    work(run)
