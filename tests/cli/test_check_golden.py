"""The output of `saga check`, in each format, equals its golden file: see test_golden.py."""

from __future__ import annotations

import re

import pytest

from tests.cli.test_golden import FORMATS, assert_golden


@pytest.mark.parametrize("output", [*FORMATS, "sarif"])
def test_check_output_is_the_golden_one(saga, data_dir, output):
    result = saga("check", "-o", output)

    assert result.exit_code == 0, result.output
    timeless = re.sub(r'(?<="seconds":)( ?)[\d.]+|(?<= in )[\d.]+(?= s)', r"\1#", result.stdout)
    assert_golden(f"check.{output}.txt", timeless, result.stderr, data_dir)


def test_annotations_are_the_golden_ones(saga, data_dir):
    result = saga("check", "payment", "-o", "github")

    assert result.exit_code == 1
    assert_golden("check-payment.github.txt", result.stdout, result.stderr, data_dir, r"(?<=,line=)\d+")
