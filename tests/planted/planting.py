"""Find the bugs, copy the project, and put one into the other."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from pathlib import Path
from types import ModuleType

from tests.planted import bugs as package

PROJECT = Path(__file__).parents[2]


def bugs() -> dict[str, ModuleType]:
    """Return the bugs by name."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def copy_project(folder: Path) -> None:
    """Copy what the tests need."""
    for name in ("toolkit", "services", "tests"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)


def plant(bug: ModuleType, folder: Path) -> None:
    """Break a copy of the project; what is replaced must stand there exactly once."""
    for name, edits in bug.EDITS.items():
        file = folder / name
        source = file.read_text()
        for sound, broken in edits:
            assert source.count(sound) == 1, f"{bug.__name__}: {name} has {source.count(sound)} times: {sound}"
            source = source.replace(sound, broken)
        file.write_text(source)
