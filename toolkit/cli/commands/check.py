"""`saga check`: whether the declared sagas end well in every interleaving."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.exit_codes import ExitCode, UsageError, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import console, print_json, text_of
from toolkit.cli.service_discovery import discover, find_service, package_name, passed_over, place_of_service
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from rich.text import Text

    from toolkit.checker.check import SagaReport
    from toolkit.checker.findings import Finding
    from toolkit.declaration.contract import Contract
    from toolkit.declaration.service import Service

#: As `toolkit.checker.explorer` has it, which this module imports at need only.
_MOST_STATES = 1_000_000


def check(
    declared: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SERVICE|MODULE:ATTRIBUTE|FILE.json]...",
            help="All services of the sagas, or their contracts; else those below the current directory.",
        ),
    ] = None,
    most_states: Annotated[
        int, typer.Option(min=1, metavar="N", help="Explore so many states of a saga; beyond, nothing is proved.")
    ] = _MOST_STATES,
    tests: Annotated[
        Path | None, typer.Option("--pytest", metavar="PATH", help="Write each story as a failing test.")
    ] = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check the declared sagas: by static rules, and in every interleaving.

    Messages come late, twice and in any order; steps refuse, deadlines pass, sagas are aborted. A coordinator's plan is
    explored for each documented example of the starting event. Shows a shortest story for each violation, and what to
    change. Ends with 1 where anything is wrong, with 4 where a saga has too many states to be explored, and with 3
    where a service can't be asked.
    """
    from toolkit.checker.check import check as reports_on

    services = list(_services(declared or [], service))
    places = _places(services, tests) if tests else {}
    reports = list(_timed(reports_on(_contracts(services), most_states=most_states)))
    if output is Format.TABLE:
        for report, seconds in reports:
            _print(report, seconds)
    else:
        print_json([_row(report, seconds) for report, seconds in reports], output)
    if tests:
        _write([report for report, _ in reports], tests, places)
    if any(report.findings for report, _ in reports):
        leave(ExitCode.PROBLEM)
    leave(ExitCode.UNFINISHED if any(report.is_unfinished for report, _ in reports) else ExitCode.FINE)


def _services(declared: Iterable[str], named: list[str] | None) -> Iterator[Service | Contract]:
    """Yield the services that are declared here, and the contracts of those that run elsewhere."""
    from toolkit.configuration.environment import secret_variable

    declared = list(declared)
    for each in declared:
        if each.endswith(".json"):
            yield from _contracts_in(Path(each))
        else:
            yield find_service(each)
    if named or (secret_variable("SAGA_SERVICES") and not declared):
        yield from run_async(_read(named))
    elif not declared:
        yield from discover(package_name()).values()
        for sentence in passed_over(package_name()):
            complain(f"warning: {sentence}")


def _contracts(services: Iterable[Service | Contract]) -> Iterator[Contract]:
    """Yield the services' contracts, with the settings that a service started here would have."""
    from toolkit.configuration.settings import load_settings
    from toolkit.declaration.contract import Contract, contract_of

    settings = load_settings()
    for each in services:
        if isinstance(each, Contract):
            yield each
        else:
            yield contract_of(each, settings)


def _contracts_in(path: Path) -> list[Contract]:
    """Return the contracts in a file: one, or a list of them, as `/contract` answers them."""
    from pydantic import ValidationError

    from toolkit.declaration.contract import Contract

    try:
        content = json.loads(path.read_text())
        return [Contract.model_validate(each) for each in (content if isinstance(content, list) else [content])]
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except (ValidationError, ValueError) as error:
        raise UsageError(f"{path} holds no contract, as a service answers it at /contract") from error


async def _read(named: list[str] | None) -> list[Contract]:
    async with opened(named) as known:
        return [await each.contract() for each in known]


def _places(services: Collection[Service | Contract], tests: Path) -> dict[str, tuple[str, str]]:
    """Return the module and the attribute of each service, by its name.

    Raises:
        UsageError: a service is not declared here, two have one name, or the path holds something else than such tests.
    """
    from toolkit.checker.pytest_file import MARK
    from toolkit.declaration.service import Service

    if tests.exists() and not (tests.is_file() and tests.read_text().startswith(MARK)):
        raise UsageError(f"{tests} exists, and is no file of such tests: name another one")
    declared = {id(each): each for each in services if isinstance(each, Service)}.values()
    known = {each.name: place_of_service(each) for each in declared}
    if len(known) < len(declared):
        raise UsageError("--pytest plays each service by its name, and two have the same one: name one of them only")
    found = {name: place for name, place in known.items() if place}
    if missing := sorted({each.name if isinstance(each, Service) else each.service for each in services} - set(found)):
        raise UsageError(f"--pytest needs the declarations of all services; these are none: {', '.join(missing)}")
    return found


def _write(reports: Iterable[SagaReport], path: Path, places: dict[str, tuple[str, str]]) -> None:
    from toolkit.checker.pytest_file import file_of

    reports = list(reports)
    text = file_of(reports, places)
    if any(finding.story for report in reports if report.plan for finding in report.findings):
        complain("the stories of a coordinator's plan are not written: such a test plays no coordinator")
    if not text:
        complain(f"no story to write: {path} is left as it is")
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error
    count = text.count("\n    asyncio.run(play())")
    written = f"{count} failing {'test' if count == 1 else 'tests'} written"
    complain(f"{written}: python -m pytest {path} (pytest has to be installed)")


def _timed(reports: Iterator[SagaReport]) -> Iterator[tuple[SagaReport, float]]:
    """Yield each report with how many seconds it took."""
    begun = time.monotonic()
    for report in reports:
        yield report, time.monotonic() - begun
        begun = time.monotonic()


def _print(report: SagaReport, seconds: float) -> None:
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


def _row(report: SagaReport, seconds: float) -> dict[str, Any]:
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
