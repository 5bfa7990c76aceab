"""A BaseException that a service's code raises fails the attempt, and ends none of the toolkit's loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event as hooks
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import dead_letters_of, lent, log_of, notes, states
from tests.example_sagas.loans import BookWanted, CardRefused, Clerk, library
from toolkit import Event
from toolkit.errors import EscapedError, describe
from toolkit.foreign_code.containment import contain, contained, in_own_task
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.database import Database
from toolkit.persistence.step_session import StepSession

#: Slow statements for SQLite and for PostgreSQL.
SLOW = {
    True: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n",
    False: "SELECT pg_sleep(60)",
}


class Halt(BaseException):
    """An exception that derives from BaseException alone."""


async def await_a_cancelled_task(_: Any = None, __: Any = None) -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def await_a_cancelled_future(*_: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancel_its_own_task(*_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def leave_the_process(*_: Any) -> None:
    raise SystemExit(0)


async def close_like_a_generator(*_: Any) -> None:
    raise GeneratorExit


async def halt(*_: Any) -> None:
    raise Halt("that is enough")


async def fail_in_a_group(*_: Any) -> None:
    raise BaseExceptionGroup("all at once", [Halt("one"), ValueError("two")])


Act = Callable[[Any, AsyncSession], Awaitable[Event | None]]
ESCAPES = [
    await_a_cancelled_task,
    await_a_cancelled_future,
    cancel_its_own_task,
    leave_the_process,
    close_like_a_generator,
    halt,
    fail_in_a_group,
]


@pytest.fixture(params=ESCAPES, ids=lambda escape: escape.__name__)
def escape(request: pytest.FixtureRequest) -> Act:
    return request.param


def wanted(number: int) -> WireMessage:
    return wire(BookWanted(loan_id=f"loan-{number}"))


@pytest.mark.parametrize("external", [False, True], ids=["step", "external"])
async def test_an_escaping_error_fails_the_steps_attempt(
    database: Database, clerk: Clerk, escape: Act, external: bool
) -> None:
    branch = Branch(library(clerk, external=external, undoable=False), database, resources={Clerk: clerk})

    async def only_the_second(event: Any, session: AsyncSession) -> None:
        if event.loan_id == "loan-2":
            await escape(event, session)

    clerk.will("lend_book", *[only_the_second] * 20)
    async with branch.open(), asyncio.timeout(10):
        await asyncio.gather(*(branch.batcher.deliver(wanted(number)) for number in (1, 2, 3)))
        await branch.batcher.deliver(wanted(2))
        await branch.batcher.deliver(wanted(4))

    assert await lent(database) == ["loan-1", "loan-3", "loan-4"]
    assert (await states(database, "loan-2"))[-1] == "failed"
    assert await notes(database, "loan-2") == ["retrying"]
    assert "EscapedError: " in (await log_of(database, "loan-2"))[-1].error


async def test_the_error_names_cause_and_cure(database: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), database, resources={Clerk: clerk})
    clerk.will("lend_book", await_a_cancelled_task)

    await branch.take(BookWanted(loan_id="loan-1"))

    (note,) = await log_of(database, "loan-1")
    assert note.error.startswith(
        "EscapedError: lend_book raised CancelledError without being cancelled: it awaited a task"
    )


@pytest.mark.parametrize("external", [False, True], ids=["step", "external"])
async def test_an_escaping_error_fails_a_compensation(
    database: Database, clerk: Clerk, escape: Act, external: bool
) -> None:
    branch = Branch(library(clerk, external=external), database, resources={Clerk: clerk})
    back = CardRefused(loan_id="loan-1", reason="expired")
    clerk.will("take_back", escape, escape)
    async with branch.open(), asyncio.timeout(10):
        await branch.batcher.deliver(wanted(1))
        for _ in range(2):
            await branch.batcher.deliver(wire(back))

    (dead_letter,) = await dead_letters_of(database)
    assert dead_letter.reason == "retries spent"
    assert "EscapedError" in dead_letter.traceback


async def test_errors_escape_external_calls_with_sessions_too(database: Database, clerk: Clerk, escape: Act) -> None:
    branch = Branch(library(clerk, external=True, undoable=False), database, resources={Clerk: clerk})

    async def write_and_escape(event: Any, session: AsyncSession) -> None:
        await (await session.connection()).execute(text("UPDATE shelves SET books = 0"))
        await escape(event, session)

    clerk.will("lend_book", write_and_escape, write_and_escape)
    async with branch.open(), asyncio.timeout(10):
        for _ in range(2):
            await branch.batcher.deliver(wanted(1))

    assert (await states(database, "loan-1"))[-1] == "failed"
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT min(books) FROM shelves")) == 100


@pytest.mark.parametrize("external", [False, True], ids=["step", "external"])
async def test_a_cancelled_statement_leaves_no_lock_behind(database: Database, clerk: Clerk, external: bool) -> None:
    branch = Branch(library(clerk, external=external, undoable=False), database, resources={Clerk: clerk})

    async def wait_too_short(event: Any, session: AsyncSession) -> None:
        if event.loan_id == "loan-2":
            async with asyncio.timeout(0.05):
                await (await session.connection()).execute(text(SLOW[database.is_sqlite]))

    clerk.will("lend_book", *[wait_too_short] * 20)
    async with branch.open(), asyncio.timeout(8):
        await asyncio.gather(*(branch.batcher.deliver(wanted(number)) for number in (1, 2, 3)))
        await branch.batcher.deliver(wanted(2))
        await branch.batcher.deliver(wanted(4))

    assert await lent(database) == ["loan-1", "loan-3", "loan-4"]
    assert (await states(database, "loan-2"))[-1] == "failed"
    assert await notes(database, "loan-2") == ["retrying"]


@pytest.mark.parametrize("moment", ["before_flush", "before_commit", "after_commit"])
async def test_a_hook_that_raises_no_exception_stops_nothing(database: Database, clerk: Clerk, moment: str) -> None:
    branch = Branch(library(clerk), database, resources={Clerk: clerk})
    left: list[BaseException] = [SystemExit(0)]

    def hook(*_: Any) -> None:
        if left:
            raise left.pop()

    hooks.listen(StepSession.sync_session_class, moment, hook)
    try:
        async with branch.open(), asyncio.timeout(10):
            for number in (1, 1, 2):
                await branch.batcher.deliver(wanted(number))
    finally:
        hooks.remove(StepSession.sync_session_class, moment, hook)

    assert await lent(database) == ["loan-1", "loan-2"]


@pytest.mark.parametrize("error", [ValueError("no such key"), SystemExit(0)], ids=repr)
async def test_a_raising_log_processor_repeats_no_step(
    database: Database, clerk: Clerk, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    branch = Branch(library(clerk), database, resources={Clerk: clerk})

    def fail(*_: Any) -> Any:
        raise error

    with capture_logs(processors=[fail]):
        async with branch.open(), asyncio.timeout(10):
            for number in (1, 2):
                await branch.batcher.deliver(wanted(number))

    assert clerk.calls == [("lend_book", "loan-1"), ("lend_book", "loan-2")]
    assert await lent(database) == ["loan-1", "loan-2"]
    assert [each.message for each in caplog.records if each.name == "toolkit"] == [
        "what was committed could not be reported"
    ] * 2


async def test_a_cancellation_of_the_task_itself_passes(database: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), database, resources={Clerk: clerk})
    begun = asyncio.Event()

    async def wait_long(*_: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    clerk.will("lend_book", wait_long)
    running = asyncio.create_task(branch.batcher.run())
    delivery = asyncio.create_task(branch.batcher.deliver(wanted(1)))
    await begun.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    delivery.cancel()

    assert running.cancelled()
    assert await log_of(database, "loan-1") == []


async def test_ctrl_c_passes_through_a_contained_block() -> None:
    with pytest.raises(KeyboardInterrupt), contained("it"):
        raise KeyboardInterrupt


async def test_a_cancellation_that_the_code_swallows_goes_on() -> None:
    async def swallow() -> None:
        with contained("it"):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise SystemExit(5) from None  # as `wait_for`, `gather` and a TaskGroup do with an error of a task

    task = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_ordinary_error_passes_as_it_is() -> None:
    with pytest.raises(ValueError, match="as it is"):
        await contain("it", _raise(ValueError("as it is")))


async def test_a_task_cancelled_apart_spares_its_caller() -> None:
    task = asyncio.current_task()
    assert task is not None

    with pytest.raises(EscapedError):
        await in_own_task("it", cancel_its_own_task())

    assert not task.cancelling()


async def _raise(error: Exception) -> None:
    raise error


def test_an_error_without_a_text_is_described() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise AttributeError("no text")

    assert describe(MuteError()) == "MuteError: (its text could not be made: AttributeError)"
    assert describe(ValueError("half a character: \ud800")) == "ValueError: half a character: \\ud800"
