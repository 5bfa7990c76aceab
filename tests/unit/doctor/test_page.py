"""The page of the doctor is what its checks declare."""

from __future__ import annotations

from pathlib import Path
from string import Formatter

import pytest

from toolkit.doctor.checks.registry import CHECKS
from toolkit.doctor.findings import Check
from toolkit.doctor.page import PAGE, with_checks

PROJECT = Path(__file__).parents[3]


def test_the_page_is_as_the_checks_declare():
    page = (PROJECT / PAGE).read_text()

    assert page == with_checks(page), "run `make doctor-page`"


def test_the_page_names_each_check_once():
    lines = (PROJECT / PAGE).read_text().splitlines()

    assert [line[4:] for line in lines if line.startswith("### ")] == [each.name for each in CHECKS]
    assert len({each.name for each in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_check_has_all_its_texts(check: Check):
    assert all((check.name, check.why, check.cure, check.looks_at.endswith(".")))
    assert all(name is None or name.isidentifier() for _, name, _, _ in Formatter().parse(check.cure))
