"""The stories of `saga check` as tests: which services they import, and the file that they are written to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.exit_codes import UsageError, complain
from toolkit.cli.service_discovery import place_of_service

if TYPE_CHECKING:
    from toolkit.checker.check import SagaReport
    from toolkit.declaration.contract import Contract
    from toolkit.declaration.service import Service


def story_places(services: Collection[Service | Contract], tests: Path) -> dict[str, tuple[str, str]]:
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


def write_stories(reports: Iterable[SagaReport], path: Path, places: dict[str, tuple[str, str]]) -> None:
    """Write each story as a failing test, and how to run it.

    Raises:
        UsageError: the file can't be written.
    """
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
