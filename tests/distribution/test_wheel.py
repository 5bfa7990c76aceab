"""What the wheel holds, as hatchling chooses it by pyproject.toml."""

from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files() -> set[str]:
    builder = WheelBuilder(str(PROJECT))
    return {each.distribution_path for each in builder.recurse_included_files()}


def test_wheel_announces_the_annotations_to_checkers(files: set[str]):
    assert "toolkit/py.typed" in files


def test_wheel_holds_the_toolkit_alone(files: set[str]):
    assert {path.split("/")[0] for path in files} == {"toolkit"}
