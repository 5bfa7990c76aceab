"""Each example's sagas end as its demonstration states, embedded and on RabbitMQ."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import environment
from tests.docs.pages import PROJECT
from tests.examples.demos import DEMOS
from tests.examples.running import Running
from toolkit.checker.check import check
from toolkit.cli.demonstration import Demo, end_of


def test_no_interleaving_of_an_example_breaks_it(demo: Demo):
    assert [each.is_proved for each in check(demo.services)] == [True]


@pytest.mark.parametrize("name", DEMOS)
def test_demo_ends_as_written_and_stays_readable(name: str, tmp_path: Path):
    saga = (sys.executable, "-m", "toolkit.cli")
    variables = environment(SAGA_DATA_DIR=str(tmp_path), **dict.fromkeys(DEMOS[name].ledgers, "postgresql://nowhere/"))

    shown = subprocess.run(
        (*saga, "demo", name), cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=90
    )
    there = environment(
        SAGA_DATA_DIR=str(tmp_path / DEMOS[name].directory),
        SAGA_PACKAGE=DEMOS[name].package,
        SAGA_BROKER_URL="embedded",
    )
    verified = subprocess.run((*saga, "verify"), cwd=PROJECT, env=there, capture_output=True, text=True, timeout=90)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr == ""
    assert "WRONG" not in shown.stdout
    assert shown.stdout.count("✓ right") >= len(DEMOS[name].scenarios) + len(DEMOS[name].always) + 1
    assert f"export SAGA_PACKAGE=examples.{name} SAGA_DATA_DIR={tmp_path}{os.sep}demo-{name}" in shown.stdout
    assert verified.returncode == 0, verified.stderr
    assert f"{len(DEMOS[name].scenarios)} sagas verified, all is right" in verified.stderr


async def test_scenarios_over_rabbitmq_end_as_in_the_demo(running: Running):
    scenarios, saga = running.demo.scenarios, running.demo.saga

    async with running.checked() as checks:
        played = await running.play_all(scenarios)
        timelines = await running.ended(*(each.id for each in scenarios))

    assert {saga_id: end_of(running.demo, each) for saga_id, each in timelines.items()} == {
        each.id: each.expected for each in scenarios
    }
    assert [each for each in played if not each.is_right] == []
    assert await running.violations() == []
    results = await checks.results({(saga.name, saga_id): each.state for saga_id, each in timelines.items()})
    assert [each for each in results if not each.holds] == []
