"""An operator's changes to one database: each batch is one transaction, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import dead_letters_of, rename
from tests.example_sagas.loans import NOON, BookWanted, Clerk, library
from toolkit.declaration.events import SagaState
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations import sagas
from toolkit.operations.dead_letters import DEAD_LETTERS_AT_ONCE
from toolkit.operations.outcomes import BatchResult
from toolkit.persistence import audit_log, dead_letter_queries, dead_letters, outbox, saga_log
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter, Selection
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import read_streams
from toolkit.protocol.fence import StepState

ADA = Operator("ada@desk", "the shelf is mended")
QUEUE = "saga.library"
LATER = NOON + timedelta(hours=1)


async def store(database: Database, *stored: DeadLetter) -> None:
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), stored)


def dead(number: int = 1, message: WireMessage | None = None, **facts: Any) -> DeadLetter:
    known = {"reason": "retries spent", "step": "lend_book", "at": NOON + timedelta(seconds=number)}
    message = message or wire(BookWanted(loan_id=f"loan-{number}"), at=NOON, attempt=5)
    return DeadLetter(id=f"letter-{number:04}", service="library", error="no shelf", message=message, **(known | facts))


async def redrive(database: Database, which: Selection | None = None, **facts: Any) -> BatchResult:
    return await dead_letter_operations.redrive(database, which or Selection(), ADA, queue=QUEUE, now=LATER, **facts)


async def replay(database: Database, loan_id: str) -> BatchResult:
    return await sagas.replay(database, library(Clerk()), loan_id, ADA, now=LATER)


async def waiting(database: Database) -> list[OutboxRow]:
    async with database.transaction() as session:
        rows = await outbox.claim(await session.connection(), now=LATER, until=LATER + timedelta(days=1), most=1_000)
        return sorted(rows, key=lambda row: row.id)


async def log(database: Database, loan_id: str, **facts: Any) -> None:
    known = {
        "service": "library", "saga_id": loan_id, "saga_type": "loan", "step": "lend_book", "position": 1,
        "from_state": None, "to_state": StepState.COMPLETED, "saga_state": SagaState.STARTED, "event_id": "event-1",
        "event_type": "BookWanted", "at": NOON,
    }  # fmt: skip
    async with database.transaction() as session:
        await saga_log.append(await session.connection(), [Entry(**(known | facts))])


async def audited(database: Database) -> list[tuple[str, str | None, str]]:
    async with database.reading() as connection:
        rows = await audit_log.listed(connection)
    return [(row.verb, row.saga_id, row.subject) for row in rows]


async def test_a_redriven_message_goes_to_the_services_queue(database: Database) -> None:
    message = wire(BookWanted(loan_id="loan-1"), at=NOON, attempt=5)
    await store(database, dead(1, message))

    await redrive(database)

    (row,) = await waiting(database)
    assert row.destination == QUEUE
    assert row.message == wire(BookWanted(loan_id="loan-1"), at=NOON, attempt=1)


async def test_a_bare_message_gets_its_dead_letters_facts(database: Database) -> None:
    deaths = {"x-death": [{"reason": "rejected"}], "x-first-death-queue": QUEUE, "x-colour": "red"}
    bare = WireMessage(b"{}", "reader.BookWanted", headers=deaths)
    await store(database, dead(1, bare, step=None, reason="schema"))

    await redrive(database)

    (row,) = await waiting(database)
    assert (row.message.message_id, row.message.type) == ("letter-0001", "BookWanted")
    assert row.message.timestamp == NOON + timedelta(seconds=1)
    assert row.message.headers == {"x-colour": "red"}
    assert row.message.correlation_id == "-"  # no saga's id: the client would generate one for a message without


async def test_a_batch_redrives_open_sagas_only(database: Database) -> None:
    await log(database, "loan-1", saga_state=SagaState.COMPLETED)
    await log(database, "loan-2")
    await store(database, dead(1), dead(2), dead(3))

    batch = await redrive(database)

    assert [(row.saga_id, row.outcome) for row in batch.rows] == [
        ("loan-1", "refused"),
        ("loan-2", "redriven"),
        ("loan-3", "redriven"),
    ]
    assert [each.saga_id for each in await dead_letters_of(database)] == ["loan-1"]
    assert await audited(database) == [("redrive", "loan-3", "letter-0003"), ("redrive", "loan-2", "letter-0002")]


@pytest.mark.parametrize(
    ("which", "selected"),
    [
        (Selection(), [1, 2, 3]),
        (Selection(ids=("letter-0001", "letter-0003")), [1, 3]),
        (Selection(reason="schema"), [2]),
        (Selection(step="lend_book"), [1, 3]),
        (Selection(saga_id="loan-2"), [2]),
        (Selection(before=NOON + timedelta(seconds=2)), [1, 2]),
        (Selection(up_to="letter-0002"), [1, 2]),
        (Selection(step="lend_book", before=NOON + timedelta(seconds=2)), [1]),
        (Selection(ids=("letter-0009",)), []),
    ],
)
async def test_a_selections_conditions_all_apply(database: Database, which: Selection, selected: list[int]) -> None:
    await store(database, dead(1), dead(2, reason="schema", step=None), dead(3))

    async with database.reading() as connection:
        count = await dead_letter_queries.count(connection, which)
    would = await redrive(database, which, dry_run=True)
    done = await dead_letter_operations.drop(database, which, ADA, now=LATER)

    assert count == len(selected)
    assert [row.id for row in would.rows] == [row.id for row in done.rows] == [f"letter-{n:04}" for n in selected]


async def test_batches_are_bounded_and_continue(database: Database) -> None:
    await store(database, *(dead(number) for number in range(DEAD_LETTERS_AT_ONCE + 5)))

    first = await redrive(database)
    second = await redrive(database, after=first.after or "")

    assert (len(first.rows), first.after) == (DEAD_LETTERS_AT_ONCE, f"letter-{DEAD_LETTERS_AT_ONCE - 1:04}")
    assert (len(second.rows), second.after) == (5, None)
    assert len(await waiting(database)) == DEAD_LETTERS_AT_ONCE + 5


async def test_concurrent_operators_take_each_dead_letter_once(database: Database) -> None:
    await store(database, *(dead(number) for number in range(60)))

    batches = await asyncio.gather(
        *(redrive(database) for _ in range(3)),
        *(dead_letter_operations.drop(database, Selection(), ADA, now=LATER) for _ in range(3)),
    )

    outcomes = [row.outcome for batch in batches for row in batch.rows]
    assert len(outcomes) == 60
    assert len(await waiting(database)) == outcomes.count("redriven")
    assert len(await audited(database)) == 60
    assert await dead_letters_of(database) == []


async def test_each_steps_last_event_is_replayed_once(database: Database) -> None:
    lent = {"emitted_id": "event-2", "emitted_type": "BookLent", "emitted_body": '{"loan_id": "loan-1"}'}
    back = {"emitted_id": "event-3", "emitted_type": "BookTakenBack", "emitted_body": '{"loan_id": "loan-1"}'}
    await log(database, "loan-1", **lent)
    await log(database, "loan-1", position=2, to_state=StepState.COMPENSATED, **back)
    await log(database, "loan-1", step="other_step", **lent)

    batch = await replay(database, "loan-1")

    assert [(row.step, row.event_id, row.outcome) for row in batch.rows] == [
        ("lend_book", "event-3", "replayed"),
        ("other_step", "event-2", "replayed"),
    ]
    assert {row.message.message_id for row in await waiting(database)} == {"event-3", "event-2"}


@pytest.mark.parametrize(("undoable", "outcome"), [(True, "completed"), (False, "final")])
@pytest.mark.parametrize("verb", [sagas.replay, sagas.nudge])
async def test_a_repeated_reply_is_final_where_nothing_undoes(
    database: Database, verb: Callable[..., Awaitable[BatchResult]], undoable: bool, outcome: str
) -> None:
    await log(database, "loan-1", emitted_id="event-2", emitted_type="BookLent", emitted_body='{"loan_id": "loan-1"}')

    await verb(database, library(Clerk(), undoable=undoable), "loan-1", ADA, now=LATER)

    (row,) = await waiting(database)
    assert (row.message.headers["reply"], row.message.headers["outcome"]) == ("lend_book", outcome)


async def test_a_replay_repeats_the_sagas_end(database: Database) -> None:
    ending = {"emitted_id": "event-2", "emitted_type": "BookTakenBack", "emitted_body": '{"loan_id": "loan-1"}'}
    await log(database, "loan-1", saga_state=SagaState.FAILED, **ending)

    await replay(database, "loan-1")
    await replay(database, "loan-1")

    ends = [row.message for row in await waiting(database) if row.message.type == "SagaEnded"]
    assert len({message.message_id for message in ends}) == 1
    assert b'"failed":["loan-1"]' in ends[0].body


async def test_an_undeclared_event_is_not_replayed(database: Database) -> None:
    await log(database, "loan-1", emitted_id="event-2", emitted_type="BookMailed", emitted_body="{}")

    batch = await replay(database, "loan-1")

    assert [(row.outcome, row.why) for row in batch.rows] == [("refused", "this service no longer declares BookMailed")]
    assert await waiting(database) == []


async def test_a_replay_of_an_unknown_saga_does_nothing(database: Database) -> None:
    batch = await replay(database, "loan-404")

    assert batch.rows == []
    assert await audited(database) == []


async def test_a_redrive_resets_the_retries(database: Database) -> None:
    await log(database, "loan-1")
    for note in ("retrying", "retrying", "dead_lettered", "redriven", "retrying"):
        await log(database, "loan-1", position=None, to_state=note)

    async with database.reading() as connection:
        streams = await read_streams(connection, ["loan-1"])

    assert streams["loan", "loan-1", "lend_book"].retries == 1


async def test_an_interrupted_redrive_changes_nothing(database: Database) -> None:
    await store(database, dead(1))
    await rename(database, "saga_audit", "elsewhere")

    with pytest.raises(DBAPIError):
        await redrive(database)

    await rename(database, "elsewhere", "saga_audit")
    assert await waiting(database) == []
    assert [row.outcome for row in (await redrive(database)).rows] == ["redriven"]
    assert (await redrive(database)).rows == []
