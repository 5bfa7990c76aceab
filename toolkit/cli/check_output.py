"""The results of `saga check`: for people as lines, for programs as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from toolkit.cli.exit_codes import complain
from toolkit.cli.output import console, print_table, shortened, text_of

if TYPE_CHECKING:
    from rich.text import Text

    from toolkit.checker.check import SagaReport
    from toolkit.checker.findings import Finding
    from toolkit.compatibility.compare import ChangeReport
    from toolkit.compatibility.edges import Edge


def print_report(report: SagaReport, seconds: float) -> None:
    """Print what was found in one saga, or in one plan of it."""
    from rich.text import Text

    sign, verdict = _verdict(report, _extent(report, seconds))
    console().print(Text.assemble(sign, " saga ", text_of(report.saga), text_of(_plan_of(report)), f": {verdict}"))
    for finding in report.findings:
        for line in _lines(finding):
            console().print(line, soft_wrap=True)
    if report.findings and report.is_unfinished:
        complain(f"warning: {report.saga} has more states than were explored, and may have more findings")


def _plan_of(report: SagaReport) -> str:
    """Return whose plan was explored, and for which of the starting event's examples."""
    if report.plan is None:
        return ""
    numbers = [str(each) for each in report.plan.examples]
    examples = f" for {'example' if len(numbers) == 1 else 'examples'} {', '.join(numbers)}" if numbers else ""
    return f", {report.coordinator}'s plan{examples}"


def _extent(report: SagaReport, seconds: float) -> str:
    """Return how much was explored, and how long it took."""
    if report.exploration:
        states = report.exploration.states
        return f"{states:,} {'state' if states == 1 else 'states'} in {seconds:.1f} s"
    if report.plan:
        return "not explored"
    return f"not explored, since {report.coordinator} asks its steps by a plan of its own"


def _verdict(report: SagaReport, extent: str) -> tuple[str | tuple[str, str], str]:
    if report.findings:
        count = len(report.findings)
        return ("✗", "bold red"), f"{count} {'finding' if count == 1 else 'findings'}, {extent}"
    if report.exploration is None:
        return "·", f"{extent}: check {report.coordinator}, too"
    if report.is_unfinished:
        return ("?", "bold yellow"), f"nothing is proved: more than {extent}; explore more by --most-states"
    return ("✓", "green"), f"no interleaving breaks it, {extent}"


def _lines(finding: Finding) -> Iterator[Text]:
    from rich.text import Text

    yield Text.assemble("\n", (finding.rule, "bold"), ": ", text_of(finding.message))
    for number, sentence in enumerate(finding.story, start=1):
        yield Text.assemble(f"  {number}. ", text_of(sentence))
    where = f"{finding.function} ({finding.service})"
    yield Text.assemble("  change ", (where, "cyan"), ": ", text_of(finding.cure))


def row_of(report: SagaReport, seconds: float) -> dict[str, Any]:
    """Return what was found in one saga, or in one plan of it, as a program reads it."""
    explored = report.exploration
    return {
        "saga": report.saga,
        "coordinator": report.coordinator,
        "plan": report.plan.model_dump(include={"examples", "groups", "failed_end"}) if report.plan else None,
        "is_proved": report.is_proved,
        "is_complete": explored is not None and explored.is_complete,
        "states": explored.states if explored else 0,
        "at_rest": explored.at_rest if explored else 0,
        "seconds": round(seconds, 3),
        "findings": [asdict(each) for each in report.findings],
    }


# -- changes -----------------------------------------------------------------------------------------------------------


def print_change(report: ChangeReport, against: Sequence[str], seconds: float) -> None:
    """Print what a change does to one saga: its findings, and the edges of the events that differ."""
    from rich.text import Text

    sign, verdict = _change_verdict(report, seconds)
    console().print(
        Text.assemble(sign, " saga ", text_of(report.saga), " against ", text_of(", ".join(against)), verdict)
    )
    for finding in report.findings:
        for line in _lines(finding):
            console().print(line, soft_wrap=True)
    if changed := [each for each in report.edges if each.changes or each.faults]:
        console().print()
        combinations = list(dict.fromkeys(each.when for each in report.edges))
        print_table(("event", "from", "to", "change", *combinations), _edge_rows(changed, combinations))


def change_row(report: ChangeReport, against: Sequence[str], seconds: float) -> dict[str, Any]:
    """Return what a change does to one saga, as a program reads it."""
    edges = [asdict(each) | {"is_compatible": each.is_compatible} for each in report.edges]
    return {
        "saga": report.saga,
        "against": list(against),
        "is_compatible": report.is_compatible,
        "is_proved": report.is_proved,
        "is_complete": bool(report.explorations) and not report.is_unfinished,
        "states": report.states,
        "seconds": round(seconds, 3),
        "reason": report.reason or None,
        "edges": edges,
        "findings": [asdict(each) for each in report.findings],
    }


def _change_verdict(report: ChangeReport, seconds: float) -> tuple[str | tuple[str, str], str]:
    errors = sum(1 for each in report.findings if each.level == "error")
    explored = f"{report.states:,} states in {seconds:.1f} s" if report.explorations else "not explored"
    reason = f"; {report.reason}" if report.reason else ""
    if errors:
        return ("✗", "bold red"), f": {errors} {'finding' if errors == 1 else 'findings'}, {explored}{reason}"
    if report.is_unfinished:
        return ("?", "bold yellow"), f": nothing is proved: more than {explored}; explore more by --most-states"
    if not report.is_proved:
        return "·", f": {explored}{reason}"
    return ("✓", "green"), f": compatible, and what is in flight ends right, {explored}"


def _edge_rows(edges: Sequence[Edge], combinations: Sequence[str]) -> list[list[Text]]:
    """Return a row for each event, sender and reader, with whether it is read in each combination of releases."""
    found: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for each in edges:
        key = each.event, each.sender, each.reader, ", ".join(each.changes) or "-"
        found.setdefault(key, {})[each.when] = "read" if each.is_compatible else "not read"
    rows = [(*key, *(read.get(when, "-") for when in combinations)) for key, read in found.items()]
    return [[shortened(cell) for cell in row] for row in rows]
