"""A bug that no longer fits the code would be planted nowhere, and the report would say nothing."""

from __future__ import annotations

import ast
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
    for test in bug.CAUGHT_BY:
        file, _, function = test.partition("::")
        assert not function or f"def {function}(" in (tmp_path / file).read_text()
        assert (tmp_path / file).exists()
