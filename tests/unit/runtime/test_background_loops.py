"""A background loop that ends before it is stopped ends the service, and the error names the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.example_sagas.loans import Clerk, library
from toolkit import Service, Settings
from toolkit.errors import EscapedError, LoopEndedError
from toolkit.runtime.background_loops import Loops
from toolkit.transport.embedded import Embedded

LOOPS = ["relay", "batcher", "watchdog", "pruner"]


async def return_at_once() -> None:
    return


async def await_a_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def leave_the_process() -> None:
    raise SystemExit(0)


async def fail_in_a_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


async def fail() -> None:
    raise ValueError("a bug")


def loop_named(name: str) -> asyncio.Task[None]:
    return next(task for task in asyncio.all_tasks() if task.get_name() == name)


@pytest.mark.parametrize(
    ("loop", "fault"),
    [
        (return_at_once, "it returned"),
        (await_a_cancelled_task, "EscapedError: the loop batcher raised CancelledError"),
        (leave_the_process, "EscapedError: the loop batcher raised SystemExit: 0"),
        (fail_in_a_group, "ValueError: a bug"),
        (fail, "ValueError: a bug"),
    ],
)
async def test_an_ended_loop_is_reported_with_its_fault(loop, fault: str) -> None:
    loops = Loops("payment")
    reported: list[LoopEndedError] = []
    loops.on_end = reported.append

    with capture_logs() as logs:
        loops.begin("batcher", loop())
        await asyncio.wait(loops.tasks)
        await asyncio.sleep(0)

    assert reported == list(loops.ended.values())
    assert str(reported[0]).startswith(f"the loop batcher of payment ended though nothing had stopped it: {fault}")
    (line,) = [each for each in logs if each["log_level"] == "error"]
    assert (line["loop"], line["service"]) == ("batcher", "payment")


async def test_a_loop_that_may_end_is_not_reported() -> None:
    loops = Loops("payment")
    loops.let_end()

    loops.begin("batcher", fail())
    await asyncio.wait(loops.tasks)

    assert not loops.ended


@pytest.mark.parametrize("name", LOOPS)
async def test_an_embedded_block_ends_with_its_loop(tmp_path: Path, name: str) -> None:
    async def work() -> None:
        async with Embedded([library(Clerk())], Settings(data_dir=tmp_path)):
            await asyncio.sleep(0)
            loop_named(f"{name} of library").cancel()
            await asyncio.wait_for(asyncio.Event().wait(), 20)

    with pytest.raises(LoopEndedError, match=f"the loop {name} of library ended"):
        await work()

    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_loop_error_is_raised_where_embedded_stops(tmp_path: Path) -> None:
    embedded = Embedded([library(Clerk())], Settings(data_dir=tmp_path))
    await asyncio.create_task(embedded.__aenter__())
    await asyncio.sleep(0)
    batcher = loop_named("batcher of library")
    batcher.cancel()
    await asyncio.wait({batcher})

    with pytest.raises(LoopEndedError):
        await embedded.__aexit__(None, None, None)


async def test_a_cancelled_embedded_block_ends_as_cancelled(tmp_path: Path) -> None:
    async def work() -> None:
        async with Embedded([library(Clerk())], Settings(data_dir=tmp_path)):
            await asyncio.sleep(0)
            loop_named("batcher of library").cancel()
            running.cancel()
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await asyncio.wait({running}, timeout=20)

    assert running.cancelled()


@pytest.mark.parametrize("harm", [await_a_cancelled_task, leave_the_process])
@pytest.mark.parametrize("moment", ["provider", "seed"])
async def test_a_start_that_raises_system_exit_fails(tmp_path: Path, harm, moment: str) -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def first(_: Settings) -> AsyncIterator[Clerk]:
        opened.append("first")
        yield Clerk()
        opened.remove("first")

    @asynccontextmanager
    async def second(_: Settings) -> AsyncIterator[str]:
        await harm()
        yield ""

    async def seed(_: object) -> None:
        await harm()

    provides = {Clerk: first, str: second} if moment == "provider" else {Clerk: first}
    plain = library(Clerk())
    service = Service(
        name="library",
        participants=list(plain.participants),
        tables=plain.tables,
        provides=provides,
        seed=seed if moment == "seed" else None,
    )

    with pytest.raises(EscapedError, match=moment):
        async with Embedded([service], Settings(data_dir=tmp_path)):
            pass

    assert not opened


async def test_a_failing_provider_keeps_nothing_open(tmp_path: Path) -> None:
    @asynccontextmanager
    async def provider(_: Settings) -> AsyncIterator[Clerk]:
        yield Clerk()
        raise SystemExit(0)

    plain = library(Clerk())
    service = Service(
        name="library", participants=list(plain.participants), tables=plain.tables, provides={Clerk: provider}
    )

    with capture_logs() as logs:
        async with Embedded([service], Settings(data_dir=tmp_path)) as embedded:
            pass

    assert [each["event"] for each in logs if each["log_level"] == "error"] == [
        "the resources of the steps could not be closed"
    ]
    assert embedded.runtimes["library"].database.engine.pool.checkedout() == 0
