"""The toolkit, as its users use it: steps, compensations, and rows by SQLModel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.systems.process import Assignment, work
from toolkit import Event, Participant, Refusal, Saga, SagaId, Service, Settings
from toolkit.app import App
from toolkit.observability.logs import configure_logs
from toolkit.service_process import collect_garbage_seldom


class Placed(Event, owner="client"):
    order_id: SagaId
    refuse: bool = False


class Reserved(Event, owner="stock"):
    order_id: SagaId
    refuse: bool = False


class Released(Event, owner="stock"):
    order_id: SagaId
    reason: str = ""


class Paid(Event, owner="payment"):
    order_id: SagaId
    refuse: bool = False


class Refunded(Event, owner="payment"):
    order_id: SagaId
    reason: str = ""


class Shipped(Event, owner="shipping"):
    order_id: SagaId


class NotShipped(Refusal, owner="shipping"):
    order_id: SagaId


class Told(Event, owner="mail", optional=True):
    order_id: SagaId


class Apologized(Event, owner="mail", optional=True):
    order_id: SagaId
    reason: str = ""


saga = Saga(name="bench", id_field="order_id", starts_with=Placed, completes_with=Told, fails_with=Apologized)
tables = MetaData()


class Base(SQLModel, registry=registry(metadata=tables)):
    """The one table, which each service has in a database of its own."""


class Effect(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    order_id: str
    amount: int


stock, payment = Participant("stock", saga=saga), Participant("payment", saga=saga)
shipping, mail = Participant("shipping", saga=saga), Participant("mail", saga=saga)


@stock.step()
async def reserve(event: Placed, session: AsyncSession) -> Reserved:
    """Reserve the goods."""
    session.add(Effect(order_id=event.order_id, amount=1))
    return Reserved(order_id=event.order_id, refuse=event.refuse)


@stock.compensation(of=reserve)
async def release(event: Refunded, session: AsyncSession) -> Released:
    """Release them."""
    session.add(Effect(order_id=event.order_id, amount=-1))
    return Released(order_id=event.order_id, reason=event.reason)


@payment.step()
async def pay(event: Reserved, session: AsyncSession) -> Paid:
    """Take the money."""
    session.add(Effect(order_id=event.order_id, amount=1))
    return Paid(order_id=event.order_id, refuse=event.refuse)


@payment.compensation(of=pay)
async def refund(event: NotShipped, session: AsyncSession) -> Refunded:
    """Give it back."""
    session.add(Effect(order_id=event.order_id, amount=-1))
    return Refunded(order_id=event.order_id, reason=event.reason)


@shipping.step()
async def ship(event: Paid, session: AsyncSession) -> Shipped | NotShipped:
    """Ship, unless the address is excluded."""
    if event.refuse:
        return NotShipped(order_id=event.order_id, reason="the address is excluded")
    session.add(Effect(order_id=event.order_id, amount=1))
    return Shipped(order_id=event.order_id)


@mail.step()
async def tell(event: Shipped, session: AsyncSession) -> Told:
    """Send the customer a confirmation."""
    session.add(Effect(order_id=event.order_id, amount=1))
    return Told(order_id=event.order_id)


@mail.step()
async def apologize(event: Released, session: AsyncSession) -> Apologized:
    """Send the customer an apology."""
    session.add(Effect(order_id=event.order_id, amount=1))
    return Apologized(order_id=event.order_id, reason=event.reason)


SERVICES = {
    each.name: Service(name=each.name, participants=[each], tables=tables) for each in (stock, payment, shipping, mail)
}


async def run(assignment: Assignment, stopped: asyncio.Event, services: Mapping[str, Service] = SERVICES) -> None:
    """Run the services that have a database in the assignment, as `saga run` does."""
    collect_garbage_seldom()
    async with AsyncExitStack() as stack:
        for name, url in assignment.databases.items():
            settings = Settings(
                broker_url=assignment.broker, exchange=assignment.exchange, database_url=url, log_level="error",
                relay_poll=timedelta(seconds=1),
            )  # fmt: skip
            configure_logs(settings)
            app = App(services[name], settings)
            await app.start()
            stack.push_async_callback(app.stop)
        print("ready", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    work(run)
