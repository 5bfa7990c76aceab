"""A release: what the wheel and the source distribution hold, and how they describe themselves."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.docs.pages import PROJECT
from toolkit.extras import EXTRAS

#: The first run installs the tools, from their lock.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    """The wheel that `make dist` builds from the source distribution, checked by twine and check-wheel-contents."""
    made = subprocess.run(["make", "dist"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (path,) = (PROJECT / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(path).decode())


def files(directory: Path) -> set[str]:
    """Return a directory's files, without the caches that running them leaves."""
    paths = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(PROJECT)) for path in paths}


def test_wheel_holds_the_whole_toolkit(wheel: zipfile.ZipFile):
    held = {name for name in wheel.namelist() if name.startswith("toolkit/")}

    assert {name for name in held if not name.startswith("toolkit/demos/")} == files(PROJECT / "toolkit")
    assert {"toolkit/py.typed", "toolkit/console/static/console.css", "toolkit/console/templates/base.html"} <= held


def test_wheel_holds_the_demonstrations_as_its_own(wheel: zipfile.ZipFile, metadata: Message):
    demos = {name.removeprefix("toolkit/demos/") for name in wheel.namelist() if name.startswith("toolkit/demos/")}

    assert demos == files(PROJECT / "services") | files(PROJECT / "examples")
    described = f"saga_toolkit-{metadata['Version']}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {"toolkit", described}


def test_metadata_describes_the_release(metadata: Message):
    assert (metadata["Name"], metadata["License-Expression"]) == ("saga-toolkit", "MIT")
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Author"]
    assert {each.partition(", ")[0] for each in metadata.get_all("Project-URL", [])} >= {"Repository", "Changelog"}
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert set(metadata.get_all("Provides-Extra", [])) == {*EXTRAS, "all"}


@pytest.mark.usefixtures("wheel")
def test_source_distribution_holds_its_own_tests():
    (path,) = (PROJECT / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    needed = {"Makefile", "pyproject.toml", "requirements-dev.lock", ".importlinter", "compose.yaml", "hatch_build.py"}
    assert needed <= held
    for name in ("toolkit", "services", "examples", "tests", "benchmarks", "deploy"):
        assert files(PROJECT / name) <= held
