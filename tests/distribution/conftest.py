"""The wheel, and environments in which it is installed as users do."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distribution.environments import Environment, Unpacked
from tests.docs.pages import PROJECT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", directory, "."]
    subprocess.run(build, cwd=PROJECT, check=True, timeout=240)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture
def install(wheel: Path, tmp_path: Path) -> Callable[[str], Environment]:
    """Install the wheel with an extra, or the base with "", in a fresh environment; return it."""

    def installed(extra: str) -> Environment:
        directory = tmp_path / "environment"
        venv.create(directory, with_pip=True)
        environment = Environment(directory, tmp_path)
        environment.install(f"{wheel}[{extra}]" if extra else str(wheel))
        return environment

    return installed


@pytest.fixture(scope="session")
def wheels_files(wheel: Path) -> Path:
    """The directory of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.parent / "files")
    return wheel.parent / "files"


@pytest.fixture
def unpacked(wheels_files: Path, tmp_path: Path) -> Unpacked:
    """The wheel's files, and an empty directory to work in."""
    return Unpacked(wheels_files, tmp_path)
