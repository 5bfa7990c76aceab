"""Durable execution, the other way to a saga: DBOS runs the order as one workflow of transactional steps.

Each step commits its row and its checkpoint together, in the service's own database. Orders arrive and ends leave over
the same broker as with all systems, so that the same client can place them. The delivery is acknowledged once the
workflow is durable. The workflow itself publishes its end: again, if the process ended before the checkpoint.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig, SetWorkflowID
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.saga import COMPLETED, FAILED, SERVICES, START
from benchmarks.systems.process import Assignment, work

Step = Callable[[str, int], Awaitable[None]]
RequestBody = Callable[[str, bool], Coroutine[None, None, None]]

PREFETCH, POOL = 400, 10

tables = MetaData()
effect = Table(
    "effect",
    tables,
    Column("id", Integer, primary_key=True),
    Column("order_id", String),
    Column("amount", Integer),
)


async def transactional_step(service: str, url: str) -> Step:
    """Return the one step of a service, upon its own database: write a row."""
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=POOL, pool_timeout=300
    )
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    source = await AsyncSQLAlchemyDatasource.create(url, engine=engine)

    @source.transaction(name=service, isolation_level="READ COMMITTED")
    async def act(order_id: str, amount: int) -> None:
        session: AsyncSession = source.sql_session()
        await session.execute(insert(effect).values(order_id=order_id, amount=amount))

    return act


def order_workflow(steps: dict[str, Step], exchange: AbstractExchange) -> RequestBody:
    """Return the saga as a function; a refused order is undone in reverse."""

    @DBOS.workflow()
    async def order(order_id: str, refuse: bool) -> None:
        await steps["stock"](order_id, 1)
        await steps["payment"](order_id, 1)
        if refuse:
            await steps["payment"](order_id, -1)
            await steps["stock"](order_id, -1)
        else:
            await steps["shipping"](order_id, 1)
        await steps["mail"](order_id, 1)
        end = aio_pika.Message(json.dumps({"order_id": order_id}).encode(), delivery_mode=2)
        await exchange.publish(end, FAILED if refuse else COMPLETED, mandatory=False)

    return order


async def run(assignment: Assignment, stopped: asyncio.Event) -> None:
    """Run all services in this process; the workflows' own tables lie beside the first one's."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": assignment.databases[SERVICES[0]],
        "log_level": "ERROR",
        "run_admin_server": False,
    }
    DBOS(config=config)
    steps = {name: await transactional_step(name, url) for name, url in assignment.databases.items()}
    connection = await aio_pika.connect(assignment.broker)
    channel = await connection.channel()
    await channel.set_qos(PREFETCH)
    exchange = await channel.declare_exchange(assignment.exchange, aio_pika.ExchangeType.TOPIC, durable=True)
    name = f"{assignment.exchange}.{SERVICES[0]}"
    queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": assignment.queues})
    await queue.bind(exchange, START)
    order = order_workflow(steps, exchange)
    DBOS.launch()

    async def consume(message: AbstractIncomingMessage) -> None:
        placed = json.loads(message.body)
        with SetWorkflowID(placed["order_id"]):
            await DBOS.start_workflow_async(order, placed["order_id"], placed["refuse"])
        await message.ack()  # the workflow is durable now

    await queue.consume(consume)
    print("ready", flush=True)
    await stopped.wait()
    await connection.close()
    DBOS.destroy()


if __name__ == "__main__":
    work(run)
