"""A service that knows a saga's end answers requests for it, and logs an error where a step contradicts it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import log_of
from tests.example_sagas.loans import (
    NOON,
    BookLent,
    BookWanted,
    CardRefused,
    Clerk,
    LoanFailed,
    LoanRefused,
    LoanRegistered,
    loan_saga,
)
from tests.unit.runtime.loan_requests import WANTED
from toolkit import Event, Participant, Service
from toolkit.declaration.events import AbortRequested, EndRequested, SagaEnded, SagaState
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note
from toolkit.runtime import control_messages
from toolkit.runtime.pruner import prune

REFUSED = CardRefused(loan_id="loan-1", reason="card expired")
ABORT = AbortRequested(saga_type="loan", saga_id="loan-1", reason="overdue")
COMPLETED = SagaEnded(saga_type="loan", completed=("loan-1",))
FAILED = SagaEnded(saga_type="loan", failed=("loan-1",))
#: The message of a service that has not ended the saga itself: only the service that ended it announces the end.
ASK = EndRequested(saga_type="loan", saga_id="loan-1")


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


async def test_a_batch_announces_its_ends_in_one_message(database: Database, clerk: Clerk) -> None:
    desk = Participant("desk", saga=loan_saga)

    @desk.step()
    async def register_loan(event: BookLent) -> LoanRegistered:
        return LoanRegistered(loan_id=event.loan_id)

    @desk.step()
    async def write_off(event: LoanRefused) -> LoanFailed:
        return LoanFailed(loan_id=event.loan_id)

    one = Branch(Service(name="desk", participants=[desk]), database, resources={})
    await one.take(
        BookLent(loan_id="loan-1"), LoanRefused(loan_id="loan-2", reason="lent out"), BookLent(loan_id="loan-3")
    )
    await one.relay.drain()

    ended = [SagaEnded.model_validate_json(each.body) for each in one.publisher.taken if each.type == "SagaEnded"]
    assert ended == [SagaEnded(saga_type="loan", completed=("loan-1", "loan-3"), failed=("loan-2",))]
    assert [entry.saga_state for entry in await log_of(database, "loan-2")] == ["Failed"]


async def test_a_received_end_confirms_completed_steps(branch: Branch, database: Database) -> None:
    ended = SagaEnded(saga_type="loan", completed=("loan-1", "loan-2"))
    await branch.take(WANTED, BookWanted(loan_id="loan-2"))

    await branch.executor.execute([message_of(ended)])

    for loan_id in ("loan-1", "loan-2"):
        assert [entry.to_state for entry in await log_of(database, loan_id)] == ["completed", "confirmed"]


@pytest.mark.parametrize("end", [COMPLETED, FAILED], ids=["completed", "failed"])
async def test_a_nudge_requests_an_end_elsewhere_once(branch: Branch, end: SagaEnded) -> None:
    await branch.take(WANTED)
    await branch.take(end)

    await take(branch, WANTED, nudge="first")
    await take(branch, WANTED, nudge="first")
    assert await ends(branch) == [ASK]
    await take(branch, WANTED, nudge="second")
    assert await ends(branch) == [ASK, ASK]


async def test_a_nudge_is_answered_with_the_end_once(branch: Branch) -> None:
    await branch.take(WANTED)
    await write(branch, "register_loan", "completed", SagaState.COMPLETED, position=1)

    await take(branch, WANTED, nudge="first")
    await take(branch, WANTED, nudge="first")

    assert await ends(branch) == [COMPLETED]


async def test_an_end_request_is_answered_by_the_ender(branch: Branch) -> None:
    await write(branch, "register_loan", "completed", SagaState.COMPLETED, position=1)

    await take(branch, ASK, event_id="one")
    await take(branch, ASK, event_id="one")

    assert await ends(branch) == [COMPLETED]


async def test_an_end_request_is_not_answered_elsewhere(branch: Branch) -> None:
    await write(branch, "register_loan", Note.ENDED, SagaState.FAILED)

    await take(branch, ASK)

    assert await ends(branch) == []


async def test_copies_of_a_nudge_get_one_answer(branch: Branch) -> None:
    await branch.take(WANTED)
    await branch.take(COMPLETED)

    await branch.executor.execute([message_of(WANTED, at=NOON, nudge="first")] * 20)

    assert await ends(branch) == [ASK]


async def test_a_plain_duplicate_gets_no_answer(branch: Branch) -> None:
    await branch.take(WANTED)
    await branch.take(COMPLETED)

    await take(branch, WANTED)

    assert await ends(branch) == []


async def test_a_nudge_of_open_sagas_gets_none(branch: Branch) -> None:
    await branch.take(WANTED)

    await take(branch, WANTED, nudge="first")

    assert await ends(branch) == []


async def test_an_answer_that_is_long_ago_is_forgotten(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_messages, "_MOST_ANSWERED", 2)
    await branch.take(WANTED)
    await branch.take(COMPLETED)

    for nudge in ("first", "second", "third", "third", "first"):
        await take(branch, WANTED, nudge=nudge)

    assert await ends(branch) == [ASK] * 4


async def test_an_abort_is_answered_by_the_ender(branch: Branch) -> None:
    await write(branch, "register_loan", "completed", SagaState.COMPLETED, position=1)

    await take(branch, ABORT)
    await take(branch, ABORT)

    assert await ends(branch) == [COMPLETED]
    assert await states(branch) == ["completed"]


async def test_an_abort_of_an_ended_saga_changes_nothing(branch: Branch) -> None:
    await write(branch, "register_loan", Note.ENDED, SagaState.FAILED)

    await take(branch, ABORT)

    assert await ends(branch) == []
    assert await states(branch) == []


async def test_an_abort_of_a_pruned_saga_fences_nothing(branch: Branch, logs: list[Any]) -> None:
    await branch.take(WANTED)
    await branch.take(COMPLETED)
    branch.clock.advance(timedelta(days=10))
    await prune(branch.database, older_than=timedelta(days=5), now=branch.clock.now())

    await take(branch, ABORT, started_at=NOON)
    assert await log_of(branch.database, "loan-1") == []
    assert "abort of a saga that may have been pruned; it is ignored" in [each["event"] for each in logs]

    await take(branch, ABORT, started_at=branch.clock.now())
    assert await states(branch) == ["fenced"]


async def test_a_refusal_after_completion_is_logged_as_error(branch: Branch, logs: list[Any]) -> None:
    await branch.take(WANTED)
    await branch.take(COMPLETED)

    await take(branch, REFUSED)
    await take(branch, REFUSED)

    assert await states(branch) == ["completed", "confirmed"]
    assert [entry.error for entry in await noted(branch)] == ["CardRefused came after the saga was completed"]
    (line,) = [each for each in logs if each["event"] == "saga contradicts its end"]
    assert (line["log_level"], line["saga_id"], line["step"]) == ("error", "loan-1", "lend_book")
    assert await ends(branch) == [ASK], "the refusing service asks for the end"


async def test_a_refusal_after_failure_is_only_late(branch: Branch, logs: list[Any]) -> None:
    await branch.take(WANTED)
    await take(branch, REFUSED)
    await branch.take(FAILED)

    await take(branch, CardRefused(loan_id="loan-1", reason="again"), event_id="another")

    assert (await noted(branch))[-1].error == "CardRefused came too late"
    assert "saga contradicts its end" not in [each["event"] for each in logs]


async def test_a_step_done_after_completion_is_confirmed(branch: Branch) -> None:
    await write(branch, "register_loan", Note.ENDED, SagaState.COMPLETED)

    await branch.take(WANTED)

    assert await states(branch) == ["completed", "confirmed"]


async def test_a_refusal_after_completion_is_a_contradiction(branch: Branch, clerk: Clerk) -> None:
    await write(branch, "register_loan", Note.ENDED, SagaState.COMPLETED)

    async def refuse(event: BookWanted, _: Any) -> Event:
        return LoanRefused(loan_id=event.loan_id, reason="no books")

    clerk.will("lend_book", refuse, refuse)  # the log, which is read after that, shows the end
    await branch.take(WANTED)

    assert await states(branch) == ["failed"]
    assert (await noted(branch))[-1].error == "failed in a saga that ended completed"


async def test_a_step_done_after_failure_is_a_contradiction(branch: Branch) -> None:
    await write(branch, "register_loan", Note.ENDED, SagaState.FAILED)

    await branch.take(WANTED)

    assert await states(branch) == ["completed"]
    assert (await noted(branch))[-1].error == "still completed in a saga that ended failed"


async def test_a_step_fenced_after_failure_is_no_contradiction(branch: Branch) -> None:
    await write(branch, "register_loan", Note.ENDED, SagaState.FAILED)

    await take(branch, REFUSED)

    assert await states(branch) == ["fenced"]
    assert [entry.step for entry in await noted(branch)] == ["register_loan"]


async def take(branch: Branch, event: Event, **facts: Any) -> None:
    await branch.executor.execute([message_of(event, at=branch.clock.now(), saga_id="loan-1", **facts)])


async def write(branch: Branch, step: str, to: str, state: SagaState, position: int | None = None) -> None:
    """Append a log entry of another step of this service."""
    facts: dict[str, Any] = {"service": "library", "saga_id": "loan-1", "saga_type": "loan", "step": step}
    emitted = {"emitted_id": f"by-{step}"} if position else {}
    entry = Entry(**facts, **emitted, position=position, from_state=None, to_state=to, saga_state=state, event_id=None,
                  event_type=None, at=NOON)  # fmt: skip
    async with branch.database.transaction() as session:
        await saga_log.append(await session.connection(), [entry])


async def ends(branch: Branch) -> list[Event]:
    """Return the published ends, and the published requests for one."""
    await branch.relay.drain()
    kinds = {kind.__name__: kind for kind in (SagaEnded, EndRequested)}
    return [kinds[each.type].model_validate_json(each.body) for each in branch.publisher.taken if each.type in kinds]


async def states(branch: Branch) -> list[str]:
    return [entry.to_state for entry in await log_of(branch.database, "loan-1") if entry.position]


async def noted(branch: Branch) -> list[dict[str, Any]]:
    entries = [entry for entry in await log_of(branch.database, "loan-1") if not entry.position]
    return [entry for entry in entries if entry.to_state in ("ended", "ignored")]
