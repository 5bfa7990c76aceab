"""Marks in the database identify the message that ends its process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.runtime.copies import statements
from tests.unit.runtime.poison_bench import INNOCENT, LETHAL, Bench, Nowhere
from toolkit.errors import DatabaseUnavailableError
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import suspect_messages
from toolkit.persistence.database import Database
from toolkit.persistence.suspect_messages import fingerprint
from toolkit.runtime.delivery import Delivery
from toolkit.runtime.quarantine import FEW, Quarantine


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def test_a_message_that_is_settled_leaves_no_mark(bench: Bench) -> None:
    await bench.poison_isolation.isolate(INNOCENT)

    assert bench.executed == [INNOCENT]
    assert await bench.marks(INNOCENT) == 0


async def test_four_ended_processes_give_a_message_up(bench: Bench) -> None:
    for _ in range(4):
        await bench.dies_under(LETHAL)
    await bench.poison_isolation.isolate(LETHAL)
    await bench.poison_isolation.isolate(INNOCENT)

    assert [(each.reason, each.message) for each in bench.dead_letters] == [("ended its process", LETHAL)]
    # The first death leaves no mark: a message is marked when it comes again.
    assert bench.dead_letters[0].error.startswith("its process ended 5 times while it was in hand")
    assert bench.executed == [INNOCENT]


async def test_copies_of_a_dead_letter_never_run(bench: Bench) -> None:
    for _ in range(4):
        await bench.dies_under(LETHAL)
    await bench.poison_isolation.isolate(LETHAL)
    bench.restart()
    await bench.poison_isolation.prepare()

    assert bench.poison_isolation.knows(LETHAL)
    assert not bench.poison_isolation.knows(INNOCENT)
    await bench.poison_isolation.isolate(LETHAL)
    assert len(bench.dead_letters) == 2
    assert bench.executed == []


async def test_what_an_operator_redrives_is_executed_again(bench: Bench, database: Database) -> None:
    for _ in range(4):
        await bench.dies_under(LETHAL)
    await bench.poison_isolation.isolate(LETHAL)
    async with database.transaction() as session:
        await suspect_messages.unmark(await session.connection(), [fingerprint(LETHAL)])

    await bench.poison_isolation.isolate(LETHAL)

    assert bench.executed == [LETHAL]
    assert not bench.poison_isolation.knows(LETHAL)


@pytest.mark.parametrize(("deaths", "together"), [(1, FEW), (2, 1), (3, 1)])
async def test_messages_run_together_until_their_second_mark(bench: Bench, deaths: int, together: int) -> None:
    at_once, most = 0, 0

    async def count(_: WireMessage) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.2 if deaths == 1 else 0)
        at_once -= 1

    messages = [WireMessage(b"{}", "order.Placed", f"message-{number}") for number in range(25 if deaths == 1 else 5)]
    for message in messages:
        for _ in range(deaths):
            await bench.dies_under(message)
    bench.execute = count
    await asyncio.gather(*(bench.poison_isolation.isolate(message) for message in messages))

    assert most == together
    assert [await bench.marks(message) for message in messages] == [0] * len(messages)


async def test_one_alone_waits_for_those_inside(bench: Bench) -> None:
    quarantine, order = Quarantine(), []

    async def enter(marks: int, name: str) -> None:
        async with quarantine.entered(marks=marks):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(enter(1, "few"), enter(1, "other"), enter(2, "alone"), enter(1, "later"))

    assert order == [
        "few in", "other in", "few out", "other out", "alone in", "alone out", "later in", "later out",
    ]  # fmt: skip


async def test_many_redelivered_messages_share_transactions(bench: Bench, database: Database) -> None:
    """They are counted, marked and unmarked, each for all but the first, whose transaction runs when they arrive."""
    messages = [WireMessage(b"{}", "order.Placed", f"message-{number}") for number in range(200)]
    with statements(database) as executed:
        await asyncio.gather(*(bench.poison_isolation.isolate(message) for message in messages))

    assert len(bench.executed) == 200
    assert len(executed) <= 6
    async with database.reading() as connection:
        assert not await suspect_messages.marked_messages(connection, least=1)


async def test_a_clean_stop_removes_the_marks(bench: Bench) -> None:
    executing, begun = asyncio.Event(), asyncio.Event()

    async def hang(_: WireMessage) -> None:
        begun.set()
        await executing.wait()

    bench.execute = hang
    task = asyncio.create_task(bench.poison_isolation.isolate(INNOCENT))
    await begun.wait()
    assert await bench.marks(INNOCENT) == 1

    await bench.poison_isolation.stop()

    assert await bench.marks(INNOCENT) == 0
    executing.set()
    await task


async def test_a_concurrent_copy_adds_no_mark(bench: Bench) -> None:
    executing, begun = asyncio.Event(), asyncio.Event()

    async def hang(_: WireMessage) -> None:
        begun.set()
        await executing.wait()

    bench.execute = hang
    tasks = [asyncio.create_task(bench.poison_isolation.isolate(INNOCENT))]
    await begun.wait()
    tasks.append(asyncio.create_task(bench.poison_isolation.isolate(INNOCENT)))
    await asyncio.sleep(0)

    assert await bench.marks(INNOCENT) == 1
    executing.set()
    await asyncio.gather(*tasks)
    assert await bench.marks(INNOCENT) == 0


async def test_a_copy_runs_only_under_a_written_mark(bench: Bench) -> None:
    marks: list[int] = []

    async def count(message: WireMessage) -> None:
        marks.append(await bench.marks(message))

    bench.execute = count
    await asyncio.gather(*(bench.poison_isolation.isolate(LETHAL) for _ in range(3)))

    assert marks[0] == 1
    assert 0 not in marks


async def test_a_mark_stands_until_its_last_copy_ends(bench: Bench) -> None:
    executing, ends = asyncio.Semaphore(0), [asyncio.Event(), asyncio.Event()]
    waiting = iter(ends)

    async def wait(_: WireMessage) -> None:
        executing.release()
        await next(waiting).wait()

    bench.execute = wait
    first = asyncio.create_task(bench.poison_isolation.isolate(LETHAL))
    await executing.acquire()
    copy = asyncio.create_task(bench.poison_isolation.isolate(LETHAL))
    await executing.acquire()
    ends[0].set()
    await first
    meanwhile = await bench.marks(LETHAL)
    ends[1].set()
    await copy

    assert (meanwhile, await bench.marks(LETHAL)) == (1, 0)


async def test_copies_at_a_marks_end_are_marked_again(bench: Bench) -> None:
    marks: list[int] = []

    async def count(message: WireMessage) -> None:
        marks.append(await bench.marks(message))

    bench.execute = count
    for _ in range(20):
        takes = [asyncio.create_task(bench.poison_isolation.isolate(LETHAL)) for _ in range(6)]
        await asyncio.gather(*takes)

    assert len(marks) == 120
    assert 0 not in marks


async def test_a_new_copy_is_known_once_one_was_redelivered(bench: Bench) -> None:
    before = bench.poison_isolation.knows(LETHAL)
    delivery = Delivery(LETHAL, Nowhere(), is_redelivered=True)
    bench.poison_isolation.begin(delivery)
    meanwhile = bench.poison_isolation.knows(LETHAL)
    assert delivery.isolation is not None
    await delivery.isolation

    assert (before, meanwhile, bench.poison_isolation.knows(LETHAL)) == (False, True, False)


async def test_a_returned_message_keeps_no_mark(bench: Bench) -> None:
    async def fail(_: WireMessage) -> None:
        raise RuntimeError("not recorded")

    bench.execute = fail
    with pytest.raises(RuntimeError):
        await bench.poison_isolation.isolate(INNOCENT)

    assert await bench.marks(INNOCENT) == 0


async def test_an_outage_costs_one_mark_at_most(bench: Bench) -> None:
    async def fail(_: WireMessage) -> None:
        raise DatabaseUnavailableError("away")

    for _ in range(9):
        bench.execute = fail
        with pytest.raises(DatabaseUnavailableError):
            await bench.poison_isolation.isolate(INNOCENT)

    assert await bench.marks(INNOCENT) == 1


async def test_messages_run_without_the_table_of_marks(bench: Bench, database: Database) -> None:
    async with database.transaction() as session:
        await (await session.connection()).run_sync(suspect_messages.suspects.drop)

    await bench.poison_isolation.isolate(INNOCENT)

    assert bench.executed == [INNOCENT]


async def test_marks_of_a_week_ago_are_forgotten(bench: Bench, database: Database) -> None:
    async with database.transaction() as session:
        long_ago = datetime.now(UTC) - timedelta(days=8)
        await suspect_messages.mark(await session.connection(), [fingerprint(LETHAL)], now=long_ago)

    await bench.poison_isolation.prepare()

    assert await bench.marks(LETHAL) == 0
