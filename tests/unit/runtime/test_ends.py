"""A service that knows a saga's end has whoever missed it told, and says so where a step contradicts the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import letter
from tests.example_sagas.loan_rows import log_of
from tests.example_sagas.loans import NOON, BookWanted, CardRefused, Clerk, LoanRefused, library
from toolkit import Event
from toolkit.declaration.events import AbortRequested, EndRequested, SagaEnded, SagaState
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note
from toolkit.runtime import dispatch
from toolkit.runtime.pruner import prune
from toolkit.testing import ManualClock

WANTED = BookWanted(loan_id="loan-1")
REFUSED = CardRefused(loan_id="loan-1", reason="card expired")
ABORT = AbortRequested(saga_type="loan", saga_id="loan-1", reason="overdue")
COMPLETED = SagaEnded(saga_type="loan", completed=("loan-1",))
FAILED = SagaEnded(saga_type="loan", failed=("loan-1",))
#: What a service sends that has not ended the saga itself: only the one that has may say so.
ASK = EndRequested(saga_type="loan", saga_id="loan-1")


@pytest.fixture
def branch(database: Database, clerk: Clerk) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON))


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


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

    await branch.executor.execute([letter(WANTED, at=NOON, nudge="first")] * 20)

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
    monkeypatch.setattr(dispatch, "_MOST_ANSWERED", 2)
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
    (said,) = [each for each in logs if each["event"] == "saga contradicts its end"]
    assert (said["log_level"], said["saga_id"], said["step"]) == ("error", "loan-1", "lend_book")
    assert await ends(branch) == [ASK], "who refused learns the end"


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

    clerk.will("lend_book", refuse)
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
    await branch.executor.execute([letter(event, at=branch.clock.now(), saga_id="loan-1", **facts)])


async def write(branch: Branch, step: str, to: str, state: SagaState, position: int | None = None) -> None:
    """Write what another step of this service tells of the saga."""
    facts: dict[str, Any] = {"service": "library", "saga_id": "loan-1", "saga_type": "loan", "step": step}
    entry = Entry(**facts, position=position, from_state=None, to_state=to, saga_state=state, event_id=None,
                  event_type=None, at=NOON)  # fmt: skip
    async with branch.database.transaction() as session:
        await saga_log.append(await session.connection(), [entry])


async def ends(branch: Branch) -> list[Event]:
    """Return the ends that were sent, and those that were asked for."""
    await branch.relay.drain()
    kinds = {kind.__name__: kind for kind in (SagaEnded, EndRequested)}
    return [kinds[each.type].model_validate_json(each.body) for each in branch.post.taken if each.type in kinds]


async def states(branch: Branch) -> list[str]:
    return [entry.to_state for entry in await log_of(branch.database, "loan-1") if entry.position]


async def noted(branch: Branch) -> list[dict[str, Any]]:
    entries = [entry for entry in await log_of(branch.database, "loan-1") if not entry.position]
    return [entry for entry in entries if entry.to_state in ("ended", "ignored")]
