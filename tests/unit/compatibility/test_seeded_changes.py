"""Bad changes of shipped sagas, each found with its story and the declaration to change; harmless ones pass."""

from __future__ import annotations

import pytest

from tests.unit.compatibility.changes import BAD, HARMLESS
from tests.unit.compatibility.seeded import Found, Seed, handler_with
from toolkit.compatibility.findings import ChangeFinding, Level


@pytest.mark.parametrize("name", BAD)
def test_a_bad_change_is_found_with_its_story(name: str) -> None:
    seed, wanted = BAD[name]

    found = [each for each in _findings(seed) if each.level is Level.ERROR and _is(each, wanted)]

    assert found, [f"{each.rule} {each.service} {each.function}: {each}" for each in _findings(seed)]
    assert all(each.cure for each in found)
    assert found[0].story == wanted.story


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_passes(name: str) -> None:
    reports = HARMLESS[name].reports()

    assert [str(each) for report in reports for each in report.findings if each.level is Level.ERROR] == []
    assert all(report.is_proved for report in reports)


def test_a_shorter_timeout_is_only_noted() -> None:
    (report,) = Seed(handler_with("process_payment", timeout=1.0)).reports()

    (note,) = report.findings
    assert (note.rule, note.level, report.is_compatible) == ("timeout shortened", Level.NOTE, True)
    assert note.message.startswith("the timeout of process_payment (payment) is 1 s, it was 30 s")


def _findings(seed: Seed) -> list[ChangeFinding]:
    return [each for report in seed.reports() for each in report.findings]


def _is(finding: ChangeFinding, wanted: Found) -> bool:
    where = (finding.rule, finding.service, finding.function)
    return where == (wanted.rule, wanted.service, wanted.function) and wanted.message in finding.message
