"""Printing a demonstration's results, for people."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from toolkit.cli.demonstration_answers import PlayedAnswer
from toolkit.cli.output import console, print_table
from toolkit.cli.service_discovery import DEFAULT_PACKAGE, is_bundled
from toolkit.cli.timelines import print_timeline, styled_state
from toolkit.client.account_checks import CheckResult
from toolkit.declaration.events import SagaState
from toolkit.protocol.fence import StepState
from toolkit.protocol.timeline import Timeline

#: The states that a saga's path shows, in the order of their signs.
_SHOWN = (StepState.COMPLETED, StepState.FAILED, StepState.COMPENSATED, StepState.FENCED)


@dataclass(frozen=True, slots=True)
class Line:
    """One saga of the table."""

    id: str
    plot: str
    state: SagaState | None
    retries: int
    timeline: Timeline
    is_right: bool


def print_ends(saga: str, lines: Iterable[Line], faults: Iterable[str]) -> None:
    """Print a line for each saga, and below them the unexpected outcomes."""
    print_table(("", saga, "plot", "ended", "retries", "way"), [_cells(each) for each in lines])
    for fault in faults:
        console().print(Text(f"✗ WRONG: {fault}", style="bold red"))


def print_answers(saga: str, answers: Sequence[PlayedAnswer]) -> None:
    """Print what became of each answer that a person gave."""
    if not answers:
        return
    console().print("\nThe answers:\n", style="bold")
    print_table(("", saga, "answer", "by", "outcome", "why"), [_answer(each) for each in answers])


def print_longest_compensation(timeline: Timeline) -> None:
    """Print the timeline with the most compensations."""
    console().print("\nThe longest compensation path, from the logs of all services:\n", style="bold")
    print_timeline(timeline)


def print_checks(checks: Sequence[CheckResult]) -> None:
    """Print each claim about the accounts, and whether it holds."""
    console().print("\nThe accounts:\n", style="bold")
    print_table(("", "claim", "found"), [[_mark(each.holds), Text(each.claim), Text(each.found)] for each in checks])


def print_ending(*, is_right: bool) -> None:
    """Print whether all results are as expected."""
    summary = "All is as expected." if is_right else "Not all is as expected: see the lines marked WRONG."
    console().print(f"\n{summary}\n", style="bold green" if is_right else "bold red")


def print_commands(package: str, data_dir: Path, commands: Iterable[str]) -> None:
    """Print commands to try next, and before them the environment that they need."""
    saga = "saga" if shutil.which("saga") else os.path.relpath(sys.argv[0])
    variables = {"SAGA_PACKAGE": package, "SAGA_DATA_DIR": data_dir, "SAGA_BROKER_URL": "embedded"}
    if package == DEFAULT_PACKAGE and not is_bundled():
        del variables["SAGA_PACKAGE"]
    exported = " ".join(f"{name}={value}" for name, value in variables.items())
    lines = ["Try next:", f"  export {exported}", *(f"  {saga} {command}" for command in commands)]
    print("\n".join(lines))  # noqa: T201 -- commands to copy: never wrapped, never coloured


def _cells(line: Line) -> list[Text]:
    facts = [Text(line.id), Text(line.plot), styled_state(line.state), Text(str(line.retries or "-"))]
    return [_mark(line.is_right), *facts, Text(_way(line.timeline))]


def _answer(each: PlayedAnswer) -> list[Text]:
    became = (each.outcome.outcome, each.outcome.why or "-") if each.outcome else ("-", "there was no question in time")
    return [_mark(each.is_right), *map(Text, (each.saga_id, each.given.event.__name__, each.given.by, *became))]


def _way(timeline: Timeline) -> str:
    """Return the saga's path through the services: `✓` done, `✗` refused, `↩` undone, `⊘` fenced before it began."""
    signs: dict[str, str] = dict(zip(_SHOWN, "✓✗↩⊘", strict=True))
    return "  ".join(f"{signs[each.to_state]} {each.service}" for each in timeline.effects if each.to_state in signs)


def _mark(holds: bool) -> Text:
    return Text("✓ right", style="green") if holds else Text("✗ WRONG", style="bold red")
