"""Ends of sagas, which no caller waits for, wait a moment for the next batch."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import lent
from tests.example_sagas.loans import Clerk
from tests.unit.runtime.loan_requests import wanted
from tests.unit.runtime.recorded_source import Recorded
from toolkit import Service
from toolkit.declaration.events import SagaEnded
from toolkit.persistence.database import Database
from toolkit.runtime import batcher
from toolkit.runtime.delivery import Delivery

ENDED = SagaEnded(saga_type="loan", completed=["loan-9"], failed=[])


async def test_ends_of_sagas_join_the_next_batch(
    running_branch: Branch, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "_LONGEST_WAIT_OF_ENDS", 20)
    source = Recorded()
    ended, request = Delivery(wire(ENDED), source), Delivery(wanted(1), source)

    running_branch.batcher.accept([ended])
    await asyncio.sleep(0.05)
    waited = not ended.is_done
    running_branch.batcher.accept([request])
    await running_branch.batcher.drain()

    assert waited
    assert source.settled == [[ended, request]]
    assert await lent(database) == ["loan-1"]


async def test_ends_wait_for_longer_than_a_turn(running_branch: Branch) -> None:
    source = Recorded()
    ended, request = Delivery(wire(ENDED), source), Delivery(wanted(1), source)

    running_branch.batcher.accept([ended])
    for _ in range(10):  # each turn is far shorter than the patience
        await asyncio.sleep(0)
    running_branch.batcher.accept([request])
    await running_branch.batcher.drain()

    assert source.settled == [[ended, request]]


async def test_a_lonely_end_waits_only_a_moment(running_branch: Branch) -> None:
    source = Recorded()
    ended = Delivery(wire(ENDED), source)
    begun = time.monotonic()

    running_branch.batcher.accept([ended])
    async with asyncio.timeout(5):
        await running_branch.batcher.drain()

    assert source.settled == [[ended]]
    assert time.monotonic() - begun >= 0.05


async def test_a_full_batch_of_ends_does_not_wait(
    service: Service, database: Database, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "_LONGEST_WAIT_OF_ENDS", 20)
    one, source = Branch(service, database, resources={Clerk: clerk}, batch_size=3), Recorded()
    ends = [Delivery(wire(ENDED), source) for _ in range(3)]

    async with one.open(), asyncio.timeout(10):
        one.batcher.accept(ends[:2])
        await asyncio.sleep(0.05)
        one.batcher.accept(ends[2:])
        await one.batcher.drain()

    assert source.settled == [ends]


async def test_a_stopping_batcher_executes_waiting_ends(
    service: Service, database: Database, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "_LONGEST_WAIT_OF_ENDS", 20)
    one, source = Branch(service, database, resources={Clerk: clerk}), Recorded()
    running = asyncio.create_task(one.batcher.run())
    one.batcher.accept([Delivery(wire(ENDED), source)])
    await asyncio.sleep(0.05)

    one.batcher.stop()
    await asyncio.wait_for(running, timeout=5)

    assert [len(each) for each in source.settled] == [1]
