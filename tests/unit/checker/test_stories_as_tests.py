"""The story of each design fault is played on the embedded transport, and violates an invariant there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.choreography_model import Steps
from tests.example_sagas.drawn import services_of
from tests.unit.checker.shapes import APPROVAL, DIAMOND, PEOPLE, SOUND
from tests.unit.checker.test_seeded_faults import FAULTS
from toolkit.checker.check import check
from toolkit.checker.explorer import Counterexample
from toolkit.checker.moves import Action
from toolkit.checker.pytest_file import lines_of
from toolkit.testing import Scenario

STORIES = [
    pytest.param(steps, found, id=f"{name}: {found.invariant}")
    for name, (steps, *_) in FAULTS.items()
    for report in check(services_of(steps))
    for found in report.exploration.counterexamples
]


@pytest.mark.parametrize(("steps", "found"), STORIES)
def test_a_counterexample_fails_when_it_is_played(steps: Steps, found: Counterexample, tmp_path: Path) -> None:
    assert asyncio.run(played(steps, found, tmp_path)) != []


def test_a_passed_deadline_is_among_the_stories() -> None:
    stories = [story.values[1].story for story in STORIES]  # type: ignore[union-attr]  # each has its counterexample

    assert any(each.move.action is Action.EXPIRES for story in stories for each in story)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_saga_violates_nothing_when_played(name: str, tmp_path: Path) -> None:
    async def play() -> list[str]:
        async with Scenario(services_of(SOUND[name]), directory=tmp_path) as scenario:
            return await scenario.violations()

    assert asyncio.run(play()) == []


async def test_a_passed_deadline_is_played(tmp_path: Path) -> None:
    async with Scenario(services_of(DIAMOND), directory=tmp_path) as scenario:
        await scenario.deliver("Start", to="a")
        await scenario.deliver("A", to="b")
        await scenario.deliver("B", to="d")
        await scenario.expire("d", "d")

        assert scenario.states["d", "d"] == "failed"
        assert await scenario.violations() == []
        assert scenario.states["fail", "fail"] == "completed"


async def test_an_answer_is_played_once_it_is_given(tmp_path: Path) -> None:
    async with Scenario(services_of(APPROVAL, PEOPLE), directory=tmp_path) as scenario:
        scenario.answer("Yes")
        await scenario.deliver("Yes", to="decide")
        await scenario.deliver("Start", to="quote")
        await scenario.deliver("Quoted", to="decide")

        assert scenario.states["decide", "decide"] == "completed"
        assert await scenario.violations() == []
        assert scenario.states["order", "order"] == "confirmed"


async def played(steps: Steps, found: Counterexample, directory: Path) -> list[str]:
    """Run the lines of the test that would be written for a counterexample."""
    lines = "\n    ".join(lines_of(found))
    scope: dict[str, object] = {}
    exec(f"async def play(scenario):\n    {lines}\n", scope)
    async with Scenario(services_of(steps), directory=directory) as scenario:
        await scope["play"](scenario)  # type: ignore[operator]
        return await scenario.violations()
