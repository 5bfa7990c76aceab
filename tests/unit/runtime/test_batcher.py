"""The batcher settles a message after its commit, in batches, and finishes them before it stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import dead_letters_of, lent, states
from tests.example_sagas.loans import CardRefused, Clerk, library
from tests.unit.runtime.database_faults import forbid_entries_of_loan_13
from tests.unit.runtime.loan_requests import wanted
from tests.unit.runtime.recorded_source import Recorded
from toolkit import Event, Service
from toolkit.declaration.events import AbortRequested
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.database import Database
from toolkit.runtime.delivery import Delivery


async def test_a_delivery_returns_once_its_effect_is_committed(running_branch: Branch, database: Database) -> None:
    await running_branch.batcher.deliver(wanted(1))

    assert await lent(database) == ["loan-1"]
    assert running_branch.batcher.is_healthy


async def test_waiting_messages_form_the_next_batch(running_branch: Branch, clerk: Clerk, database: Database) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    sessions = []

    async def hold(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()

    async def remember(_: Event, session: AsyncSession) -> None:
        sessions.append(session)

    clerk.will("lend_book", hold, *[remember] * 60)
    first = asyncio.create_task(running_branch.batcher.deliver(wanted(0)))
    await begun.wait()
    rest = [asyncio.create_task(running_branch.batcher.deliver(wanted(number))) for number in range(1, 61)]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, *rest)

    assert len(await lent(database)) == 61
    assert [sessions.count(each) for each in dict.fromkeys(sessions)] == [50, 10]


async def test_a_committed_batch_is_settled_by_one_call(service: Service, database: Database, clerk: Clerk) -> None:
    one, source = Branch(service, database, resources={Clerk: clerk}), Recorded()
    deliveries = [Delivery(wanted(number), source) for number in range(60)]
    tasks: list[Any] = []

    def count(loop: asyncio.AbstractEventLoop, coroutine: Any, **facts: Any) -> asyncio.Task[Any]:
        tasks.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **facts)

    async with one.open():
        asyncio.get_running_loop().set_task_factory(count)
        one.batcher.accept(deliveries)
        await one.batcher.drain()
        asyncio.get_running_loop().set_task_factory(None)

    assert source.settled == [deliveries[:50], deliveries[50:]]
    assert all(each.is_done for each in deliveries)
    # A few for each transaction, and none for a delivery; the relay's are not the batcher's.
    assert len([each for each in tasks if not each.__qualname__.startswith("Relay.")]) < 12


async def test_a_delivery_with_a_call_settles_alone(database: Database, clerk: Clerk) -> None:
    one, source = Branch(library(clerk, external=True), database, resources={Clerk: clerk}), Recorded()
    back = Delivery(wire(CardRefused(loan_id="loan-2", reason="expired")), source)
    called = Delivery(wanted(1), source)

    async with one.open():
        one.batcher.accept([called, back])
        await one.batcher.drain()

    assert source.settled == [[back], [called]]


async def test_what_its_transport_gave_up_is_not_settled(service: Service, database: Database, clerk: Clerk) -> None:
    one, source = Branch(service, database, resources={Clerk: clerk}), Recorded()
    deliveries = [Delivery(wanted(number), source) for number in range(3)]
    held = asyncio.Event()

    async def give_up(_: Event, __: AsyncSession) -> None:
        deliveries[0].abandon()
        deliveries[1].abandon()
        held.set()

    clerk.will("lend_book", give_up)
    async with one.open():
        one.batcher.accept(deliveries[:1])
        await held.wait()
        one.batcher.accept(deliveries[1:])
        await one.batcher.drain()

    assert source.settled == [[deliveries[2]]]
    assert source.failed == []
    assert await lent(database) == ["loan-0", "loan-2"]


async def test_two_replicas_apply_duplicates_once(service: Service, postgres: Database, clerk: Clerk) -> None:
    replicas = [Branch(service, postgres, resources={Clerk: clerk}, batch_size=7) for _ in range(2)]
    messages = [wanted(number) for number in range(60)] * 2

    async with replicas[0].open(), replicas[1].open():
        await asyncio.gather(*(replica.batcher.deliver(each) for replica in replicas for each in messages))

    assert sorted(await lent(postgres)) == sorted(f"loan-{number}" for number in range(60))


async def test_an_abandoned_delivery_is_still_executed(
    running_branch: Branch, clerk: Clerk, database: Database
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()

    clerk.will("lend_book", hold)
    delivery = asyncio.create_task(running_branch.batcher.deliver(wanted(1)))
    await begun.wait()

    delivery.cancel()
    with suppress(asyncio.CancelledError):
        await delivery
    go_on.set()
    await running_branch.batcher.deliver(wanted(2))

    assert await lent(database) == ["loan-1", "loan-2"]


async def test_an_abandoned_delivery_may_fail_silently(postgres: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk, external=True), postgres, resources={Clerk: clerk})
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def forbid(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()
        await forbid_entries_of_loan_13(postgres)

    clerk.will("lend_book", forbid)
    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(13)))
        await begun.wait()
        delivery.cancel()
        with suppress(asyncio.CancelledError):
            await delivery
        go_on.set()
        await one.batcher.drain()

    assert one.batcher.is_idle
    assert await states(postgres, "loan-13") == ["executing"]


async def test_draining_waits_for_outside_calls(database: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk, external=True), database, resources={Clerk: clerk})
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def call(_: Event, __: AsyncSession) -> None:
        begun.set()
        await may_end.wait()

    clerk.will("lend_book", call)
    async with one.open():
        delivery = asyncio.create_task(one.batcher.deliver(wanted(1)))
        await begun.wait()
        draining = asyncio.create_task(one.batcher.drain())
        done, _ = await asyncio.wait({draining}, timeout=0.05)
        may_end.set()
        await asyncio.gather(draining, delivery)

    assert not done
    assert await states(database, "loan-1") == ["executing", "completed"]


async def test_an_unreadable_message_settles_as_dead_letter(running_branch: Branch, database: Database) -> None:
    await asyncio.gather(
        running_branch.batcher.deliver(WireMessage(b"{", "reader.BookWanted")),
        running_branch.batcher.deliver(wanted(1)),
    )

    assert await lent(database) == ["loan-1"]
    assert [each.reason for each in await dead_letters_of(database)] == ["not JSON"]


async def test_no_message_is_returned_to_the_broker(running_branch: Branch, database: Database) -> None:
    back = CardRefused(loan_id="loan-1", reason="a\0b" + "x" * 10_000)
    stop = AbortRequested(saga_type="loan", saga_id="loan-2", reason="a\0b")

    await running_branch.batcher.deliver(wire(back))
    await running_branch.batcher.deliver(wire(stop, saga_id="loan-2"))

    assert await states(database, "loan-1") == await states(database, "loan-2") == ["fenced"]


async def test_draining_waits_for_messages_not_yet_batched(running_branch: Branch, database: Database) -> None:
    delivery = asyncio.create_task(running_branch.batcher.deliver(wanted(1)))
    await asyncio.sleep(0)

    await running_branch.batcher.drain()
    await delivery

    assert await lent(database) == ["loan-1"]


async def test_a_stopped_batcher_finishes_its_batch_only(service: Service, database: Database, clerk: Clerk) -> None:
    one = Branch(service, database, resources={Clerk: clerk}, batch_size=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_: Event, __: AsyncSession) -> None:
        begun.set()
        await go_on.wait()

    clerk.will("lend_book", hold)
    deliveries = [asyncio.create_task(one.batcher.deliver(wanted(number))) for number in (1, 2)]
    running = asyncio.create_task(one.batcher.run())
    await begun.wait()

    one.batcher.stop()
    go_on.set()
    await asyncio.wait_for(running, timeout=20)
    await deliveries[0]
    was_left = not deliveries[1].done()
    deliveries[1].cancel()

    assert was_left
    assert await lent(database) == ["loan-1"]
