"""An outage of the database is waited for: no message is lost, and none is acknowledged meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.eventually import eventually
from tests.example_sagas.library_branch import Branch, RecordingPublisher
from tests.example_sagas.loan_rows import dead_letters_of, lent, rename
from tests.example_sagas.loans import NOON, Clerk, library
from tests.unit.persistence.faults import change, is_now, wanted
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.errors import DatabaseUnavailableError
from toolkit.ids import new_id
from toolkit.persistence import availability
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.runtime.delivery import settled
from toolkit.runtime.service_runtime import ServiceRuntime


async def test_a_long_outage_returns_messages_to_the_broker(
    database: Database, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "LONG_OUTAGE", 0)
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, batch_size=2)
    await rename(database, "saga_log", "hidden")

    async with branch.open():
        held = [asyncio.create_task(branch.batcher.deliver(wanted(number))) for number in range(5)]
        await branch.batcher.paused.wait()
        is_taking = branch.batcher.taking.is_set()
        branch.batcher.let_go()
        errors = await asyncio.gather(*held, return_exceptions=True)
        await rename(database, "hidden", "saga_log")
        await branch.batcher.taking.wait()
        await branch.batcher.deliver(wanted(7))

    assert not is_taking
    assert all(isinstance(error, DatabaseUnavailableError) for error in errors)
    assert not branch.batcher.paused.is_set()
    assert await lent(database) == ["loan-7"]


async def test_a_batcher_stops_during_an_outage(sqlite: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), sqlite, resources={Clerk: clerk})
    await rename(sqlite, "saga_outbox", "hidden")
    running = asyncio.create_task(branch.batcher.run())
    held = [asyncio.create_task(branch.batcher.deliver(wanted(number))) for number in range(3)]
    await eventually(lambda: is_now(not branch.batcher.is_healthy), what="the outage")

    branch.batcher.stop()
    await asyncio.wait_for(running, timeout=5)

    assert not any(each.done() for each in held)


async def test_an_unstorable_dead_letter_is_retried(sqlite: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), sqlite, resources={Clerk: clerk})
    await change(
        sqlite,
        "CREATE TRIGGER no BEFORE INSERT ON saga_log WHEN NEW.saga_id = 'loan-2' BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    await rename(sqlite, "saga_dead_letters", "hidden")

    with capture_logs() as logs:
        async with branch.open():
            unstorable = asyncio.create_task(branch.batcher.deliver(wanted(2)))
            await asyncio.sleep(0)  # it is taken first
            await branch.batcher.deliver(wanted(1))
            await eventually(lambda: is_now("dead letter could not be kept" in {each["event"] for each in logs}))
            was_settled = unstorable.done()
            await rename(sqlite, "hidden", "saga_dead_letters")
            await unstorable

    assert not was_settled
    assert [each.reason for each in await dead_letters_of(sqlite)] == ["not recordable"]
    assert await lent(sqlite) == ["loan-1"]


async def test_a_cancelled_delivery_does_not_run(sqlite: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), sqlite, resources={Clerk: clerk})
    cancelled, other = (asyncio.create_task(branch.batcher.deliver(wanted(number))) for number in (1, 2))
    await asyncio.sleep(0)
    cancelled.cancel()

    async with branch.open():
        await other

    assert await lent(sqlite) == ["loan-2"]


@pytest.fixture
async def host(tmp_path: Path, clerk: Clerk) -> AsyncIterator[ServiceRuntime]:
    """The library's service as a transport runs it, on an SQLite file."""
    settings = Settings(data_dir=tmp_path, broker_url="embedded", watch_every=timedelta(milliseconds=20))
    host = ServiceRuntime(library(clerk), settings, RecordingPublisher(), clock=SystemClock())
    await host.start()
    await change(host.database, "INSERT INTO shelves (shelf, books) VALUES (1, 100)")
    yield host
    await host.stop()


@pytest.mark.parametrize("table", ["saga_log", "saga_outbox", "saga_overdue"])
async def test_a_service_without_a_table_is_not_ready(host: ServiceRuntime, table: str) -> None:
    was_recording = host.is_recording
    await rename(host.database, table, "hidden")
    delivery = asyncio.create_task(settled(wanted(1), host.accept))

    await eventually(lambda: is_now(not host.is_recording), what="the fault")
    await rename(host.database, "hidden", table)
    await asyncio.wait_for(delivery, timeout=20)
    await eventually(lambda: is_now(host.is_recording), what="the recovery")

    assert was_recording
    assert await lent(host.database) == ["loan-1"]


async def test_a_brokers_dead_letter_waits_for_its_table(host: ServiceRuntime) -> None:
    dead_letter = DeadLetter(
        id=new_id(), service="library", reason="rejected", error="by the broker", message=wanted(1), at=NOON
    )
    await rename(host.database, "saga_dead_letters", "hidden")

    with capture_logs() as logs:
        keeping = asyncio.create_task(host.dead_letter(dead_letter))
        await eventually(lambda: is_now(any("cure" in each for each in logs)), what="the cure")
        was_done = keeping.done()
        await rename(host.database, "hidden", "saga_dead_letters")
        await asyncio.wait_for(keeping, timeout=20)

    assert not was_done
    assert [each.reason for each in await dead_letters_of(host.database)] == ["rejected"]
