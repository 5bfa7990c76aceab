"""`saga check`: whether the declared sagas end well in every interleaving, and whether a change lets them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from toolkit.cli.exit_codes import ExitCode, UsageError, leave
from toolkit.cli.options import Format, ServicesOption

if TYPE_CHECKING:
    from toolkit.checker.check import SagaReport
    from toolkit.checker.findings import Finding
    from toolkit.cli.check_sources import Source
    from toolkit.compatibility.compare import ChangeReport
    from toolkit.compatibility.findings import ChangeFinding
    from toolkit.declaration.contract import Contract

#: As `toolkit.checker.explorer` has it, which this module imports at need only.
_MOST_STATES = 1_000_000

T = TypeVar("T")


class CheckFormat(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    SARIF = "sarif"
    GITHUB = "github"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the new contracts are compared with, and how the change is deployed."""

    against: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    is_rolling: bool = False
    is_partial: bool = False


@dataclass(slots=True)
class Result:
    """The reports, each with how many seconds it took."""

    reports: list[tuple[SagaReport, float]]
    changes: list[tuple[ChangeReport, float]] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """All findings: of the sagas as they are, then of the change."""
        own = [each for report, _ in self.reports for each in report.findings]
        return [*own, *(each for report, _ in self.changes for each in report.findings)]

    @property
    def code(self) -> ExitCode:
        """How the command ends."""
        if any(report.findings for report, _ in self.reports) or not all(
            report.is_compatible for report, _ in self.changes
        ):
            return ExitCode.PROBLEM
        unfinished = [report.is_unfinished for report, _ in self.reports]
        unfinished += [report.is_unfinished for report, _ in self.changes]
        return ExitCode.UNFINISHED if any(unfinished) else ExitCode.FINE


def check(
    declared: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SERVICE|MODULE:ATTRIBUTE|FILE.json]...",
            help="All services of the sagas, or their contracts; else those below the current directory.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR|FILE|URL", help="Compare with these contracts, of what runs; repeatable."),
    ] = None,
    order: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE", help="Deployed before all others; several one after the other; repeatable."),
    ] = None,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Explore old and new services side by side, too; many more states.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Services that only --against has stay as they are.")
    ] = False,
    most_states: Annotated[
        int, typer.Option(min=1, metavar="N", help="Explore so many states of a saga; beyond, nothing is proved.")
    ] = _MOST_STATES,
    tests: Annotated[
        Path | None, typer.Option("--pytest", metavar="PATH", help="Write each story as a failing test.")
    ] = None,
    service: ServicesOption = None,
    output: Annotated[
        CheckFormat, typer.Option("-o", "--output", help="For people, for programs, or for a forge.")
    ] = CheckFormat.TABLE,
) -> None:
    """Check the declared sagas: by static rules, and in every interleaving.

    Messages come late, twice and in any order; steps refuse, deadlines pass, sagas are aborted. A coordinator's plan is
    explored for each documented example of the starting event. Shows a shortest story for each violation, and what to
    change. With --against, shows whether each event of the new contracts and of those that run is still read, and
    whether each saga in flight ends right. Ends with 1 where anything is wrong, with 4 where a saga has too many states
    to be explored, and with 3 where a service can't be asked.
    """
    from toolkit.cli.check_sources import contracts_of, sources_of
    from toolkit.cli.check_stories import story_places, write_stories

    comparison = Comparison(tuple(against or ()), tuple(order or ()), rolling, partial)
    sources = sources_of(declared or [], service)
    places = story_places([each.declared for each in sources], tests) if tests else {}
    result = _result(list(contracts_of(sources)), comparison, most_states=most_states)
    _print(result, comparison.against, sources, output)
    if tests:
        write_stories([report for report, _ in result.reports], tests, places)
    leave(result.code)


def _result(contracts: list[Contract], comparison: Comparison, *, most_states: int) -> Result:
    from toolkit.checker.check import check as reports_on
    from toolkit.cli.check_sources import check_distinct, contracts_against

    if not comparison.against:
        if comparison.order or comparison.is_rolling or comparison.is_partial:
            raise UsageError("--order, --rolling and --partial are about a change: name what runs by --against")
        return Result(list(_timed(reports_on(contracts, most_states=most_states))))
    check_distinct(contracts, "the new release")
    old = contracts_against(comparison.against)
    if comparison.is_partial:
        named = {each.service for each in contracts}
        contracts += [each for each in old if each.service not in named]
    if unknown := sorted({*comparison.order} - {each.service for each in contracts}):
        known = ", ".join(sorted(each.service for each in contracts))
        raise UsageError(f"--order names {', '.join(unknown)}, and there is no such service; there are: {known}")
    reports = list(_timed(reports_on(contracts, most_states=most_states)))
    return _compared(reports, old, contracts, comparison, most_states=most_states)


def _compared(
    reports: list[tuple[SagaReport, float]],
    old: list[Contract],
    new: list[Contract],
    comparison: Comparison,
    *,
    most_states: int,
) -> Result:
    """Return the result of a comparison; what is only kept for sagas in flight becomes a note of the change."""
    from toolkit.compatibility.changed_moves import Rollout
    from toolkit.compatibility.compare import compare, draining

    rollout = Rollout(is_rolling=comparison.is_rolling, order=comparison.order)
    changes = list(_timed(compare(old, new, rollout=rollout, most_states=most_states)))
    notes = {finding: note for report, _ in reports for finding in report.findings if (note := draining(finding, old))}
    checked = [
        (replace(report, findings=tuple(each for each in report.findings if each not in notes)), seconds)
        for report, seconds in reports
    ]
    noted = [(_with_notes(report, notes.values()), seconds) for report, seconds in changes]
    return Result(checked, noted)


def _with_notes(report: ChangeReport, notes: Iterable[ChangeFinding]) -> ChangeReport:
    own = [each for each in notes if each.saga == report.saga]
    return replace(report, findings=(*report.findings, *own))


def _print(result: Result, against: Sequence[str], sources: Sequence[Source], output: CheckFormat) -> None:
    from toolkit.cli.check_output import change_row, print_change, print_report, row_of
    from toolkit.cli.output import print_json

    if output is CheckFormat.TABLE:
        for report, seconds in result.reports:
            print_report(report, seconds)
        for change, seconds in result.changes:
            print_change(change, against, seconds)
    elif output in (CheckFormat.JSON, CheckFormat.JSONL):
        rows = [row_of(report, seconds) for report, seconds in result.reports]
        rows += [change_row(change, against, seconds) for change, seconds in result.changes]
        print_json(rows, Format(output.value))
    else:
        _print_places(result.findings, sources, output)


def _print_places(findings: Sequence[Finding], sources: Sequence[Source], output: CheckFormat) -> None:
    from toolkit.cli.check_places import place_of
    from toolkit.cli.github_annotations import workflow_commands
    from toolkit.cli.output import print_json
    from toolkit.cli.sarif import sarif

    found = [(each, place_of(each, sources)) for each in findings]
    if output is CheckFormat.SARIF:
        print_json(sarif(found), Format.JSON)
        return
    for line in workflow_commands(found):
        typer.echo(line)


def _timed(reports: Iterable[T]) -> Iterator[tuple[T, float]]:
    """Yield each report with how many seconds it took."""
    begun = time.monotonic()
    for report in reports:
        yield report, time.monotonic() - begun
        begun = time.monotonic()
