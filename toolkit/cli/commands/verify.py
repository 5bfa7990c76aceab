"""`saga verify`: whether all sagas came to a right end, by the services' logs, tables and queues."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, UsageError, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import MOST_SECONDS, Format, FormatOption, ServicesOption
from toolkit.cli.output import print_some, with_types
from toolkit.cli.progress_bars import counting
from toolkit.cli.service_discovery import import_here, package_name
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock

if TYPE_CHECKING:
    from toolkit.client.account_checks import AccountCheck
    from toolkit.client.verification import VerificationReport
    from toolkit.configuration.settings import Settings

_COLUMNS = ("invariant", "saga_id", "text")


def verify(
    settled: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=MOST_SECONDS,
            help="Verify only sagas that have not moved for so long; 0: all is done.",
        ),
    ] = 0,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check that every saga ended, and left nothing over.

    Each has to be done in all its parts, or undone in all of them. Ends with 1 and a list where anything is wrong, and
    with 3 where a service, or the broker that SAGA_BROKER_URL names, can't be asked.
    """
    from toolkit.cli.timelines import complain_of_gaps

    report = run_async(_verify(timedelta(seconds=settled), service))
    complain_of_gaps(report.unreachable)
    if report.unreachable:
        complain("error: without them no saga can be verified")
        leave(ExitCode.AWAY)
    rows = [asdict(each) for each in report.violations]
    print_some(rows, output, columns=with_types(_COLUMNS, rows))
    _sum_up(report)
    if report.violations:
        leave(ExitCode.PROBLEM)
    leave(ExitCode.AWAY if report.is_broker_away else ExitCode.FINE)


async def _verify(settled: timedelta, service: list[str] | None) -> VerificationReport:
    from toolkit.client.verification import verify

    before = SystemClock().now() - settled if settled else None
    async with opened(service) as clients:
        with counting() as progress:
            return await verify(
                clients, checks=checks_of(package_name()), broker=_broker(), settled_before=before, progress=progress
            )


def checks_of(package: str) -> Sequence[AccountCheck]:
    """Return the services' own checks: `CHECKS` of `<package>.accounts`, where there is such a module.

    Raises:
        UsageError: SAGA_PACKAGE names a package that does not exist.
    """
    try:
        found = import_here(package)
    except UsageError:
        if "SAGA_PACKAGE" in os.environ:
            raise
        return ()
    if not hasattr(found, "__path__") or find_spec(f"{package}.accounts") is None:
        return ()
    checks: Sequence[AccountCheck] = getattr(import_here(f"{package}.accounts"), "CHECKS", ())
    return checks


def _broker() -> Settings | None:
    """Return the settings if they name a broker: the default one may be another system's."""
    from toolkit.configuration.settings import load_settings
    from toolkit.observability.logs import configure_logs

    if "SAGA_BROKER_URL" not in os.environ:
        return None
    settings = load_settings()
    configure_logs(settings.model_copy(update={"log_level": "error"}))  # the broker's client would log that it is away
    return settings


def _sum_up(report: VerificationReport) -> None:
    for what in dict.fromkeys(report.unchecked):
        complain(f"warning: not checked: {what}")
    if report.left_out:
        that_have = "that has" if report.left_out == 1 else "that have"
        complain(f"left out: {_counted(report.left_out, 'saga')} {that_have} just moved, or are pruned in part")
    if report.violations:
        outcome = _counted(len(report.violations), "violation")
    else:
        outcome = "all is right" if not report.is_broker_away else "all is right as far as it was checked"
    complain(f"{_counted(report.sagas, 'saga')} verified, {outcome}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
