"""The story of each design fault is played on the embedded transport, and violates an invariant there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.choreography_model import Steps
from tests.example_sagas.drawn import services_of
from tests.unit.checker.shapes import SOUND
from tests.unit.checker.test_seeded_faults import FAULTS
from toolkit.checker.check import check
from toolkit.checker.explorer import Counterexample
from toolkit.checker.pytest_file import lines_of
from toolkit.testing import Scenario

#: The drawings without joins, whose events the runtime does not gather yet.
LINEAR = {name: steps for name, steps in SOUND.items() if all(len(each.on) == 1 for each in steps.values())}

STORIES = [
    pytest.param(steps, found, id=f"{name}: {found.invariant}")
    for name, (steps, *_) in FAULTS.items()
    if all(len(each.on) == 1 and len(each.undo_on) < 2 for each in steps.values())
    for report in check(services_of(steps))
    for found in report.exploration.counterexamples
]


@pytest.mark.parametrize(("steps", "found"), STORIES)
def test_a_counterexample_fails_when_it_is_played(steps: Steps, found: Counterexample, tmp_path: Path) -> None:
    assert asyncio.run(played(steps, found, tmp_path)) != []


@pytest.mark.parametrize("name", LINEAR)
def test_a_sound_saga_violates_nothing_when_played(name: str, tmp_path: Path) -> None:
    async def play() -> list[str]:
        async with Scenario(services_of(SOUND[name]), directory=tmp_path) as scenario:
            return await scenario.violations()

    assert asyncio.run(play()) == []


async def played(steps: Steps, found: Counterexample, directory: Path) -> list[str]:
    """Run the lines of the test that would be written for a counterexample."""
    lines = "\n    ".join(lines_of(found))
    scope: dict[str, object] = {}
    exec(f"async def play(scenario):\n    {lines}\n", scope)
    async with Scenario(services_of(steps), directory=directory) as scenario:
        await scope["play"](scenario)  # type: ignore[operator]
        return await scenario.violations()
