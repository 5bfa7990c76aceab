"""`make planted`: plant each bug into a copy of the project, run the tests that should notice, and say which did.

Writes docs/reports/planted.md. Ends with 1 if a bug was not caught, or if these tests fail without any bug.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.planted.planting import PROJECT, bugs, copy_project, plant

console = Console()
REPORT = PROJECT / "docs" / "reports" / "planted.md"
#: Many runs, so that the machine finds a rare way; always the same, and the first failure will do.
MACHINE = {"STATE_MACHINE_EXAMPLES": "150", "STATE_MACHINE_SHRINKS": "no"}
#: Where a test runs upon several transports and databases, one is enough to notice.
QUICKEST = "not rabbit and not postgresql"
#: A bug may well bring a test to a standstill, which counts as caught.
PATIENCE = "60"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one bug."""

    name: str
    fault: str
    caught_by: list[str]
    passed: list[str]


def main() -> int:
    soundly = sorted({test for bug in bugs().values() for test in bug.CAUGHT_BY})
    if failed := failures_with(None, soundly):
        console.print(f"these fail without any bug, so they prove nothing: {', '.join(failed)}")
        return 1
    verdicts = [judge(name, bug) for name, bug in track(bugs().items(), console=console, transient=True)]
    console.print(table(verdicts))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report(verdicts))
    return int(any(not verdict.caught_by for verdict in verdicts))


def judge(name: str, bug: ModuleType) -> Verdict:
    failed = failures_with(bug, bug.CAUGHT_BY)
    passed = [short(test) for test in bug.CAUGHT_BY if not any(each.startswith(test) for each in failed)]
    return Verdict(name, " ".join((bug.__doc__ or "").split()), [short(test) for test in failed], passed)


def failures_with(bug: ModuleType | None, tests: list[str]) -> list[str]:
    """Return those of the tests that fail in a copy of the project with this bug."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy_project(Path(folder))
        if bug:
            plant(bug, Path(folder))
        command = [sys.executable, "-m", "pytest", *tests, "-k", QUICKEST, "-q", "-rfE", "--timeout", PATIENCE]
        environment = os.environ | MACHINE | {"PYTHONPATH": folder}
        ran = subprocess.run(
            [*command, "--hypothesis-seed=0"], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if ran.returncode not in (0, 1) and "Timeout" not in ran.stdout + ran.stderr:
        raise RuntimeError(f"the tests did not run: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    # Up to its parameters: which of several cases failed says no more.
    failed = re.findall(r"^(?:FAILED|ERROR) (tests/[^\s\[]+)", ran.stdout, flags=re.MULTILINE)
    return list(dict.fromkeys(failed))


def short(test: str) -> str:
    """Return a test's name as a reader looks for it."""
    return test.rpartition("::")[2] if "::" in test else test


def table(verdicts: list[Verdict]) -> Table:
    shown = Table("bug", "caught", "by")
    for verdict in verdicts:
        is_caught = "yes" if verdict.caught_by else "[bold red]no[/]"
        shown.add_row(verdict.name.replace("_", " "), is_caught, "\n".join(verdict.caught_by))
    return shown


def report(verdicts: list[Verdict]) -> str:
    caught = sum(bool(verdict.caught_by) for verdict in verdicts)
    rows = [
        f"| {verdict.name.replace('_', ' ')} | {verdict.fault} | {'yes' if verdict.caught_by else '**no**'} "
        f"| {cell(verdict.caught_by)} | {cell(verdict.passed)} |"
        for verdict in verdicts
    ]
    return "\n".join(
        [
            "# Planted bugs",
            "",
            "Each bug was planted into a copy of the project, and the tests that should notice were run there; without",
            "any bug they all pass. Written by `make planted`; the bugs are in",
            "[tests/planted/bugs](../../tests/planted/bugs).",
            "",
            f"**{caught} of {len(verdicts)} were caught.**",
            "",
            "| bug | what is broken | caught | by | not noticed by |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def cell(tests: list[str]) -> str:
    return "<br>".join(f"`{test}`" for test in tests)


if __name__ == "__main__":
    sys.exit(main())
