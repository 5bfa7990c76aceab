"""The client in a process of its own: reads a case a line from its standard input, and answers with the load's times.

It costs little beside the systems that it measures: its publishes of one turn are one write, the ends that one read
brings are handled together, and it confirms and acknowledges nothing.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace

from benchmarks.bulk_amqp import BulkConnection, Delivery
from benchmarks.load import Case, Load, Orders
from benchmarks.saga import ENDS, START

#: Seconds without any end after which a load is given up.
PATIENCE = 240.0


async def main(broker_url: str, exchange: str) -> None:
    """Connect, with a queue of the client's own for the ends, and place what is read until the input ends."""
    connection = await BulkConnection.connect(broker_url)
    placing, ends = await connection.channel(), await connection.channel()
    await ends.channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    queue = (await ends.channel.queue_declare(exclusive=True)).queue or ""
    for end in ENDS:
        await ends.channel.queue_bind(queue, exchange, end)

    def fail(returned: list[str]) -> None:
        sys.exit(f"no queue is bound to {START}: {len(returned)} orders came back")

    placing.on_returns = fail

    async def place(case: Case) -> Load:
        orders = Orders(case, lambda messages: placing.publish(exchange, messages))

        def end(deliveries: list[Delivery]) -> None:
            orders.end([each.body for each in deliveries])

        ends.on_deliveries = end
        before = _cpu()
        load = await orders.place(patience=PATIENCE)
        return replace(load, cpu=_cpu() - before)

    await ends.consume(queue, lambda _: None, no_ack=True)
    await answer(place)
    await connection.close()


async def answer(place: Callable[[Case], Awaitable[Load]]) -> None:
    """Say that all is ready, place each case that the input brings, and write the load; return at the input's end."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: lines.put_nowait(sys.stdin.readline()))
    print("ready", flush=True)
    while line := await lines.get():
        print(json.dumps(asdict(await place(Case(**json.loads(line))))), flush=True)
    asyncio.get_running_loop().remove_reader(sys.stdin)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
