"""The checkout in which the pages' commands run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.commands import SAGA, run_saga
from tests.docs.pages import PROJECT


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in the state of a fresh checkout after `make demo`."""
    directory = tmp_path_factory.mktemp("checkout")
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "services").symlink_to(PROJECT / "services")
    run_saga([SAGA, "demo"], directory).check_returncode()
    return directory
