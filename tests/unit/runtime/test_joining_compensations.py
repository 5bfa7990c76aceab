"""A compensation that joins gathers in a stream of its own, and undoes its step once all of its events are there."""

from __future__ import annotations

import asyncio

import pytest

from tests.example_sagas.conference import (
    CatererCancelled,
    CatererRefused,
    ConferencePlanned,
    SpeakerCancelled,
    SpeakerRefused,
)
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import log_of, notes
from tests.example_sagas.travel import Script
from tests.unit.runtime.holidays import dropout, paid, taken, venues
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

PLANNED = ConferencePlanned(conference_id="fair")
NO_CATERER = CatererRefused(conference_id="fair", reason="fully booked")
NO_SPEAKER = SpeakerCancelled(conference_id="fair")
#: The states of outside calls under way.
_CLAIMS = ("executing", "compensating")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(params=[False, True], ids=["plain", "external"])
async def venue(request: pytest.FixtureRequest, database: Database, script: Script, clock: ManualClock) -> Branch:
    return await venues(database, script, clock, is_external=request.param)


async def moves(database: Database) -> dict[str, list[str]]:
    """Return the states of the step, and of its compensation's gate, without those of outside calls."""
    found: dict[str, list[str]] = {}
    for each in await log_of(database, "fair"):
        if each.position:
            found.setdefault(each.step, []).append(each.to_state)
    return {step: [each for each in of_step if each not in _CLAIMS] for step, of_step in found.items()}


@pytest.mark.parametrize("order", [(NO_CATERER, NO_SPEAKER), (NO_SPEAKER, NO_CATERER)])
async def test_a_step_is_undone_after_all_branches(
    venue: Branch, database: Database, clock: ManualClock, order: tuple
) -> None:
    await taken(venue, dropout(PLANNED, clock))

    await taken(venue, dropout(order[0], clock))
    between = await moves(database)
    await taken(venue, dropout(order[1], clock))
    await taken(venue, dropout(order[0], clock), dropout(order[1], clock))

    assert between == {"reserve_venue": ["completed"], "release_venue": ["gathering"]}
    assert await moves(database) == {
        "reserve_venue": ["completed", "compensated"],
        "release_venue": ["gathering", "gathering"],
    }
    assert await notes(database, "fair") == []
    assert await paid(database) == ["venue reserved", "venue released after CatererRefused and SpeakerCancelled"]


async def test_branches_of_one_batch_undo_the_step(venue: Branch, database: Database, clock: ManualClock) -> None:
    await taken(venue, dropout(PLANNED, clock))

    await taken(venue, *(dropout(event, clock) for event in (NO_CATERER, NO_CATERER, NO_SPEAKER)))

    assert (await moves(database))["reserve_venue"] == ["completed", "compensated"]


async def test_another_event_of_a_branch_is_noted(venue: Branch, database: Database, clock: ManualClock) -> None:
    await taken(venue, dropout(PLANNED, clock))
    await taken(venue, dropout(NO_CATERER, clock))

    await taken(venue, dropout(CatererCancelled(conference_id="fair"), clock))

    (note,) = [each for each in await log_of(database, "fair") if each.position is None]
    assert (note.step, note.error) == (
        "release_venue",
        "CatererCancelled came after another event had filled its slot",
    )
    assert (await moves(database))["reserve_venue"] == ["completed"]


async def test_a_failed_compensation_is_retried_with_a_full_gate(
    venue: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    await taken(venue, dropout(PLANNED, clock))
    script.plan("release_venue", ValueError("the phone is busy"))
    await taken(venue, dropout(NO_CATERER, clock))

    await taken(venue, dropout(NO_SPEAKER, clock))
    assert (await moves(database))["reserve_venue"] == ["completed"]
    await taken(venue, dropout(NO_SPEAKER, clock, attempt=2))

    assert await moves(database) == {
        "reserve_venue": ["completed", "compensated"],
        "release_venue": ["gathering", "gathering"],
    }
    assert await notes(database, "fair") == ["retrying"]


async def test_branches_before_the_step_fence_it(venue: Branch, database: Database, clock: ManualClock) -> None:
    await taken(venue, dropout(NO_CATERER, clock))
    await taken(venue, dropout(NO_SPEAKER, clock))

    await taken(venue, dropout(PLANNED, clock))

    assert (await moves(database))["reserve_venue"] == ["fenced"]
    assert await paid(database) == []


async def test_a_step_that_refused_gathers_nothing(
    venue: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    script.plan("reserve_venue", "refuse")
    await taken(venue, dropout(PLANNED, clock))

    await taken(venue, dropout(NO_CATERER, clock), dropout(NO_SPEAKER, clock))

    assert await moves(database) == {"reserve_venue": ["failed"]}
    assert await notes(database, "fair") == ["ignored", "ignored"]


async def test_a_full_gate_waits_for_an_unknown_outcome(database: Database, clock: ManualClock, script: Script) -> None:
    venue = await venues(database, script, clock, is_external=True)
    called, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        called.set()
        await may_answer.wait()

    script.plan("reserve_venue", slow)
    calling = asyncio.create_task(taken(venue, dropout(PLANNED, clock)))
    await called.wait()

    await taken(venue, dropout(NO_CATERER, clock), dropout(NO_SPEAKER, clock))
    deferred = await moves(database)
    may_answer.set()
    await calling
    await taken(venue, dropout(NO_SPEAKER, clock, deferred_until=1))

    assert deferred == {"reserve_venue": [], "release_venue": ["gathering", "gathering"]}
    assert (await moves(database))["reserve_venue"] == ["completed", "compensated"]


async def test_all_branches_may_refuse(venue: Branch, database: Database, clock: ManualClock) -> None:
    await taken(venue, dropout(PLANNED, clock))

    await taken(venue, dropout(NO_CATERER, clock))
    await taken(venue, dropout(SpeakerRefused(conference_id="fair", reason="abroad"), clock))

    assert await paid(database) == ["venue reserved", "venue released after CatererRefused and SpeakerRefused"]
