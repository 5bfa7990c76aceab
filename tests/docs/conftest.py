"""The checkout in which the pages' commands run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.commands import SAGA, run_saga
from tests.docs.pages import DEMONSTRATED, PROJECT


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in the state of a fresh checkout after `make demo`, and after the demonstration of each example."""
    directory = tmp_path_factory.mktemp("checkout")
    (directory / ".venv").symlink_to(sys.prefix)
    for package in ("services", "examples"):
        (directory / package).symlink_to(PROJECT / package)
    for name in ([], *([name] for name in DEMONSTRATED)):
        run_saga([SAGA, "demo", *name], directory).check_returncode()
    return directory
