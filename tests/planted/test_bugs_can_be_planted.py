"""A bug that no longer fits the code would be planted nowhere, and the report would say nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.planted.planting import bugs, copy_project, plant


@pytest.mark.parametrize("name", bugs())
def test_a_bug_still_fits_the_code(name: str, tmp_path: Path) -> None:
    bug = bugs()[name]
    copy_project(tmp_path)

    plant(bug, tmp_path)

    for file in bug.EDITS:
        ast.parse((tmp_path / file).read_text())
    # A bug that only raises NameError would prove nothing.
    undefined = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", *bug.EDITS]
    assert subprocess.run(undefined, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    for test in bug.CAUGHT_BY:
        file, _, function = test.partition("::")
        assert not function or f"def {function}(" in (tmp_path / file).read_text()
        assert (tmp_path / file).exists()
