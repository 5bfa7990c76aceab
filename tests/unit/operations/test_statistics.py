"""Statistics from kept counts equal a full count."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select

from tests.example_sagas.loans import NOON
from toolkit.declaration.events import SagaState
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import statistics
from toolkit.operations.statistics import Statistics
from toolkit.persistence import outbox
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry, append, saga_log
from toolkit.testing import ManualClock
from toolkit.tracking.snapshot import Snapshot

STATES = list(SagaState)
EVENTS = (None, "BookLent", "LoanRegistered")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_PART", 7)
    monkeypatch.setattr(statistics, "_FRESH", 0)


def entry(
    loan: str, state: SagaState, clock: ManualClock, *, emitted: str | None = None, saga_type: str = "loan"
) -> Entry:
    return Entry(
        service="library", saga_id=loan, saga_type=saga_type, step="lend_book", position=None, from_state=None,
        to_state="ignored", saga_state=state, event_id=None, event_type=None, emitted_type=emitted, at=clock.now(),
    )  # fmt: skip


async def write(database: Database, *entries: Entry) -> None:
    async with database.transaction() as session:
        await append(await session.connection(), entries)


async def look(known: Statistics, database: Database) -> Snapshot:
    return await known.snapshot(database, {"relay": True})


async def full_count(database: Database) -> dict[str, dict[str, int]]:
    last = select(func.max(saga_log.c.id)).group_by(saga_log.c.saga_type, saga_log.c.saga_id)
    query = select(saga_log.c.saga_type, saga_log.c.saga_state, func.count()).where(saga_log.c.id.in_(last))
    found: dict[str, dict[str, int]] = {}
    async with database.reading() as connection:
        for saga_type, state, count in await connection.execute(query.group_by(*list(query.selected_columns)[:2])):
            found.setdefault(saga_type, {})[state] = count
    return found


def a_random_history(dice: random.Random, clock: ManualClock) -> Iterator[list[Entry]]:
    """Yield batches of entries of many loans, and of returns under the same ids; they move, end, and move again."""
    for _ in range(12):
        loans = [f"loan-{dice.randrange(40)}" for _ in range(dice.randrange(15))]
        yield [entry(loan, dice.choice(STATES), clock, saga_type=dice.choice(["loan", "return"])) for loan in loans]


@pytest.mark.parametrize("seed", range(4))
async def test_kept_counts_equal_a_full_count(database: Database, clock: ManualClock, seed: int):
    dice, known = random.Random(seed), Statistics("library", clock)

    for entries in a_random_history(dice, clock):
        await write(database, *entries)
        clock.advance(timedelta(seconds=dice.choice([0, 1, 4, 15, 400])))
        snapshot = await look(known, database)

        counted = await full_count(database)
        assert snapshot.by_type == counted
        assert Counter(snapshot.by_state) == sum(map(Counter, counted.values()), Counter())


async def test_rate_and_p95_cover_recent_minutes(database: Database, clock: ManualClock):
    for number in range(20):
        await write(database, entry(f"loan-{number}", SagaState.STARTED, clock))
        clock.advance(timedelta(seconds=3 if number == 0 else 2))
        await write(database, entry(f"loan-{number}", SagaState.COMPLETED, clock))
        clock.advance(timedelta(seconds=8))
    known = Statistics("library", clock)

    first = await look(known, database)
    clock.advance(timedelta(minutes=2))
    later = await look(known, database)
    clock.advance(timedelta(minutes=5))
    last = await look(known, database)

    assert (first.rate, first.p95) == (pytest.approx(0.1), 2.0)
    assert (later.rate, later.p95) == (0.0, 2.0)
    assert (last.rate, last.p95) == (0.0, None)


async def test_a_saga_with_repeated_ends_counts_once(database: Database, clock: ManualClock):
    known = Statistics("library", clock)
    await write(database, entry("loan-1", SagaState.STARTED, clock), entry("loan-1", SagaState.FAILED, clock))
    await look(known, database)

    for _ in range(3):
        clock.advance(timedelta(seconds=12))
        await write(database, entry("loan-1", SagaState.FAILED, clock))
        snapshot = await look(known, database)

    assert snapshot.rate == pytest.approx(1 / 60)


async def test_emitted_events_are_counted_for_five_minutes(database: Database, clock: ManualClock):
    known = Statistics("library", clock)
    for event in ("BookLent", "BookLent", "LoanRegistered"):
        await write(database, entry("loan-1", SagaState.PENDING, clock, emitted=event))
        assert (await look(known, database)).edges
        clock.advance(timedelta(minutes=2))

    assert (await look(known, database)).edges == {"BookLent": 1, "LoanRegistered": 1}


async def test_the_backlog_has_the_oldest_rows_age(database: Database, clock: ManualClock):
    wire = WireMessage(b"{}", "library.BookLent", message_id="event-1", type="BookLent", timestamp=NOON)
    async with database.transaction() as session:
        connection = await session.connection()
        await outbox.add(connection, [OutboxRow(id="row-1", message=wire, due_at=NOON)])
    clock.advance(timedelta(seconds=90))

    snapshot = await look(Statistics("library", clock), database)

    assert (snapshot.outbox, snapshot.outbox_oldest, snapshot.overdue, snapshot.dead_letters) == (1, 90.0, 0, 0)
    assert (snapshot.service, snapshot.at, snapshot.ready) == ("library", clock.now(), {"relay": True})


async def test_an_empty_service_has_empty_statistics(database: Database, clock: ManualClock):
    snapshot = await look(Statistics("library", clock), database)

    assert snapshot.is_counted
    assert (snapshot.by_state, snapshot.by_type, snapshot.edges, snapshot.p95, snapshot.outbox_oldest) == (
        {},
        {},
        {},
        None,
        None,
    )


async def test_pruned_sagas_count_until_the_next_recount(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    known = Statistics("library", clock)
    await write(database, entry("loan-1", SagaState.FAILED, clock), entry("loan-2", SagaState.FAILED, clock))
    clock.advance(timedelta(minutes=1))
    await look(known, database)
    async with database.transaction() as session:
        await (await session.connection()).execute(delete(saga_log).where(saga_log.c.saga_id == "loan-1"))

    stale = await look(known, database)
    monkeypatch.setattr(known._base, "recount_at", 0.0)
    await look(known, database)
    assert known._counting
    await known._counting
    recounted = await look(known, database)

    assert (stale.by_state, recounted.by_state) == ({"Failed": 2}, {"Failed": 1})


async def test_a_truncated_log_is_recounted(database: Database, clock: ManualClock):
    known = Statistics("library", clock)
    await write(database, entry("loan-1", SagaState.FAILED, clock), entry("loan-2", SagaState.FAILED, clock))
    clock.advance(timedelta(minutes=1))
    await look(known, database)
    async with database.transaction() as session:
        await (await session.connection()).execute(delete(saga_log))

    await look(known, database)

    assert (await look(known, database)).by_state == {}


async def test_an_outage_is_raised_and_counting_resumes(clock: ManualClock, sqlite: Database):
    known, away = Statistics("library", clock), Database("postgresql://postgres@127.0.0.1:1/library")

    with pytest.raises(OSError, match="Connect call failed"):
        await look(known, away)
    await away.close()

    assert (await look(known, sqlite)).is_counted
