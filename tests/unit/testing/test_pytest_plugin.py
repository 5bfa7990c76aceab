"""The plugin works in each mode of pytest-asyncio, and costs a project that does not use it nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]

TESTS = """
import asyncio

import pytest

from tests.example_sagas.parcels import ParcelOrdered, services


def test_plain(saga_world):
    world = saga_world(*services())
    world.when(ParcelOrdered(parcel_id="p-1"))
    world.then.completed()


{mark}
async def test_asynchronous(saga_world):
    world = saga_world(*services())
    world.when(ParcelOrdered(parcel_id="p-1"))
    await asyncio.sleep(0)
    world.then.completed()
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a project of its own, as a team does."""
    (directory / "pytest.ini").write_text(f"[pytest]\npythonpath = {PROJECT}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("mode", "mark"), [("auto", ""), ("strict", "@pytest.mark.asyncio")])
def test_worlds_open_in_each_mode_of_pytest_asyncio(mode: str, mark: str, tmp_path: Path):
    (tmp_path / "test_parcels.py").write_text(TESTS.format(mark=mark))

    done = run(tmp_path, f"--asyncio-mode={mode}", "-q")

    assert "2 passed" in done.stdout, done.stdout


def test_the_plugin_is_registered_under_the_projects_name():
    (plugin,) = (each for each in entry_points(group="pytest11") if each.value.startswith("toolkit."))

    assert plugin.name == "saga-toolkit"
    assert plugin.value == "toolkit.testing.pytest_plugin"


def test_loading_the_plugin_imports_nothing_heavy():
    script = "import sys, pytest; known = set(sys.modules); import toolkit.testing.pytest_plugin\n"
    script += "print(*sorted(set(sys.modules) - known))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["toolkit", "toolkit.lazy_names", "toolkit.testing", "toolkit.testing.pytest_plugin"]
