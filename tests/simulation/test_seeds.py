"""A simulation finds planted faults within some seeds, shrinks the schedule, and replays a seed exactly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.example_sagas.parcels import FAULTS, Carrier, services
from tests.simulation.parcel_check import PARCELS, parcels_add_up
from toolkit.errors import WorldError
from toolkit.testing import simulate
from toolkit.testing.simulation.bench import Bench
from toolkit.testing.simulation.faults import KINDS
from toolkit.testing.simulation.schedule import Schedule

PROJECT = Path(__file__).parents[2]
#: Each planted fault is found within so many seeds.
WITHIN = 40
#: How many of a schedule's faults and sagas are left at most, once it is shrunk.
SHRUNK = {"undone": (0, 1), "order": (0, 1), "lost update": (2, 2), "new keys": (2, 2)}


def test_a_right_saga_survives_every_seed():
    assert simulate(range(25), services(), PARCELS, provides={Carrier: Carrier}, check=parcels_add_up) == 25


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_shrunk(fault: str):
    with pytest.raises(AssertionError) as failure:
        simulate(range(WITHIN), services(fault), PARCELS, provides={Carrier: Carrier}, check=parcels_add_up)

    text = str(failure.value)
    assert FAULTS[fault] in text
    left = re.search(r"still fails has (\d) of \d faults and (\d) of 2 sagas", text)
    assert left, text
    assert tuple(map(int, left.groups())) <= SHRUNK[fault]
    assert "parcel p-" in text, "the timeline is shown"


def test_a_failure_is_replayed_by_its_seed(tmp_path: Path):
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {PROJECT}\n")
    (tmp_path / "test_parcels.py").write_text(
        "from tests.example_sagas.parcels import Carrier, services\n"
        "from tests.simulation.parcel_check import PARCELS, parcels_add_up\n\n"
        "def test_parcels(saga_simulation):\n"
        "    saga_simulation(range(40), services('new keys'), PARCELS, provides={Carrier: Carrier}, "
        "check=parcels_add_up)\n"
    )

    found = run_pytest(tmp_path)
    (seed, command) = re.search(r"seed (\d+) fails: .*\n.*replay it: pytest (.*)\n", found).groups()
    replayed = run_pytest(tmp_path, *command.replace("'", "").split())

    assert command == f"'test_parcels.py::test_parcels' --saga-seed {seed}"
    assert story_of(replayed) == story_of(found)


def run_pytest(directory: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    variables = os.environ | {"PYTHONHASHSEED": str(len(arguments))}
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=200, env=variables, check=False
    )
    assert "1 failed" in done.stdout, done.stdout
    return done.stdout


def story_of(output: str) -> str:
    """Return the printed failure, from its seed to its timelines."""
    return output[output.index("AssertionError: seed") : output.rindex("emits OrderDropped")]


def test_the_kinds_of_faults_can_be_chosen():
    drawn = [
        Schedule.of(seed, [[PARCELS[0]]], services=["shelf"], kinds=["delays"], most=5).faults for seed in range(20)
    ]

    assert {type(each).__name__ for faults in drawn for each in faults} == {"Delay"}
    with pytest.raises(WorldError, match=r"no faults of the kind floods: take some of crashes, duplicates"):
        simulate(1, services(), PARCELS, faults=["floods"])
    with pytest.raises(WorldError, match="a simulation has no saga"):
        simulate(1, services(), [])


def test_every_kind_of_fault_is_drawn_and_named():
    names = {each.name for each in services()}
    faults = [
        each
        for seed in range(200)
        for each in Schedule.of(seed, [PARCELS], services=sorted(names), kinds=list(KINDS), most=6).faults
    ]

    assert {type(each).__name__ for each in faults} == {
        *("Crash", "FailpointCrash", "Duplicate", "LostAcknowledgement", "Reordering", "Delay", "ClockJump"),
        *("Stumble", "OutsideFailure"),
    }
    assert all(not str(each).startswith(type(each).__name__) for each in faults)


def test_the_same_seed_is_the_same_run():
    bench = Bench(services(), provides={Carrier: Carrier})
    schedules = [
        Schedule.of(seed, [[each] for each in PARCELS], services=bench.names, kinds=list(KINDS), most=8)
        for seed in range(5)
    ]

    runs = [[bench.run(each, parcels_add_up).deliveries for each in schedules] for _ in range(2)]
    bench.close()

    assert runs[0] == runs[1]
    assert len({tuple(each) for each in runs[0]}) == len(schedules)
