"""While a step waits for an answer, no service takes its saga for overdue; the watch counts from the decision on."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.example_sagas import approval
from tests.example_sagas.approval import PATIENCE, PurchaseWanted
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.purchase_desk import NO, QUOTED, YES, desk, incoming, taken
from tests.example_sagas.travel import Script
from toolkit import Settings
from toolkit.declaration.events import AbortRequested, SagaWaits
from toolkit.persistence import overdue_steps
from toolkit.persistence.database import Database
from toolkit.protocol.pending_rows import OverdueStep
from toolkit.runtime.watchdog import Watchdog
from toolkit.testing import ManualClock

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
WANTED = PurchaseWanted(purchase_id="desk-1")


def wait(until: datetime, *, saga_type: str = "purchase") -> SagaWaits:
    return SagaWaits(saga_type=saga_type, saga_id="desk-1", step="decide", until=until)


class Quotes:
    """A replica of the service before the desk, and its watchdog."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database, self.clock = database, clock
        self.service = approval.services(Script())[0]
        self.branch = Branch(self.service, database, resources={}, clock=clock)
        self.watchdog = Watchdog(self.service, Settings(), database=database, relay=self.branch.relay, clock=clock)

    async def receive(self, *events: SagaWaits | PurchaseWanted) -> None:
        """Execute these messages, each in a batch of its own."""
        for event in events:
            await taken(self.branch, incoming(event, self.clock))

    async def overdue(self, *, after: timedelta) -> list[OverdueStep]:
        """Return the overdue steps after so much time, with a sweep each hour."""
        until = self.clock.now() + after
        while self.clock.now() < until:
            self.clock.advance(min(timedelta(hours=1), until - self.clock.now()))
            await self.watchdog.sweep()
        async with self.database.reading() as connection:
            return await overdue_steps.listed(connection)

    async def aborts(self) -> int:
        """Return how many aborts the watchdog has requested."""
        await self.branch.relay.drain()
        return sum(each.type == AbortRequested.__name__ for each in self.branch.publisher.taken)


@pytest.fixture
async def quotes(database: Database, clock: ManualClock) -> Quotes:
    found = Quotes(database, clock)
    assert found.service.tables is not None
    await database.create_tables(found.service.tables)
    return found


@pytest.fixture
async def waiting(database: Database, clock: ManualClock) -> Branch:
    return await desk(database, clock)


async def announced(branch: Branch) -> list[datetime]:
    """Return until when the saga waits, by each announcement."""
    await branch.relay.drain()
    waits = [each for each in branch.publisher.taken if each.type == SagaWaits.__name__]
    return [SagaWaits.model_validate_json(each.body).until for each in waits]


async def test_a_question_announces_how_long_it_waits(waiting: Branch, clock: ManualClock) -> None:
    await taken(waiting, incoming(QUOTED, clock))

    assert await announced(waiting) == [clock.now() + PATIENCE]


@pytest.mark.parametrize("answer", [YES, NO])
async def test_a_decision_announces_that_it_goes_on(waiting: Branch, clock: ManualClock, answer: object) -> None:
    await taken(waiting, incoming(QUOTED, clock))
    asked_at = clock.now()
    clock.advance(DAY)

    await taken(waiting, incoming(answer, clock))  # type: ignore[arg-type]  # one of two answers

    assert await announced(waiting) == [asked_at + PATIENCE, clock.now()]


async def test_an_abort_of_the_question_goes_on(waiting: Branch, clock: ManualClock) -> None:
    await taken(waiting, incoming(QUOTED, clock))
    clock.advance(DAY)

    await taken(waiting, incoming(AbortRequested(saga_type="purchase", saga_id="desk-1", reason="no"), clock))

    assert (await announced(waiting))[1:] == [clock.now()]


async def test_a_passed_deadline_needs_no_announcement(waiting: Branch, clock: ManualClock) -> None:
    await taken(waiting, incoming(QUOTED, clock))
    clock.advance(PATIENCE + MINUTE)

    await taken(waiting, incoming(QUOTED, clock, timer="decide"))

    assert len(await announced(waiting)) == 1


async def test_a_waiting_saga_is_not_overdue(quotes: Quotes, clock: ManualClock) -> None:
    await quotes.receive(WANTED, wait(clock.now() + PATIENCE))

    assert await quotes.overdue(after=PATIENCE - MINUTE) == []
    assert await quotes.aborts() == 0


async def test_the_watch_counts_from_the_deadline_on(quotes: Quotes, clock: ManualClock) -> None:
    deadline = clock.now() + PATIENCE
    await quotes.receive(WANTED, wait(deadline))

    (step,) = await quotes.overdue(after=PATIENCE + timedelta(minutes=11))

    assert (step.step, step.since) == ("quote", deadline)
    assert await quotes.aborts() == 0
    await quotes.overdue(after=timedelta(hours=1))
    assert await quotes.aborts() == 1


@pytest.mark.parametrize("is_late", [False, True])
async def test_the_watch_counts_from_the_decision_on(quotes: Quotes, clock: ManualClock, is_late: bool) -> None:
    """Also where the message of the decision overtakes that of the question."""
    decided = clock.now() + DAY
    opened, closed = wait(clock.now() + PATIENCE), wait(decided)
    await quotes.receive(WANTED, *((closed, opened) if is_late else (opened, closed)))

    assert await quotes.overdue(after=DAY) == []
    (step,) = await quotes.overdue(after=timedelta(minutes=11))
    assert step.since == decided


async def test_a_wait_takes_an_overdue_step_back(quotes: Quotes, clock: ManualClock) -> None:
    await quotes.receive(WANTED)
    assert len(await quotes.overdue(after=timedelta(minutes=20))) == 1

    await quotes.receive(wait(clock.now() + PATIENCE))

    assert await quotes.overdue(after=DAY) == []


async def test_another_sagas_wait_holds_nothing(quotes: Quotes, clock: ManualClock) -> None:
    await quotes.receive(WANTED, wait(clock.now() + PATIENCE, saga_type="order"))

    assert len(await quotes.overdue(after=timedelta(hours=2))) == 1
