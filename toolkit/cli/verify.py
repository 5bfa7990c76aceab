"""`saga verify`: whether all sagas came to a right end, judged from the services' logs, tables and queues."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.discovery import import_here, package_name
from toolkit.cli.exits import ExitCode, complain, leave
from toolkit.cli.locating import ServicesOption, opened
from toolkit.cli.output import Format, FormatOption, print_rows
from toolkit.cli.stories import complain_of_gaps
from toolkit.cli.waiting import MOST_SECONDS, counting
from toolkit.clock import SystemClock
from toolkit.settings import Settings, load_settings

if TYPE_CHECKING:
    from toolkit.verdict import Check, Verdict

_COLUMNS = ("invariant", "saga_id", "text")


def verify(
    settled: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=MOST_SECONDS,
            help="Judge only sagas that have not moved for so long; 0: all is done.",
        ),
    ] = 0,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check that every saga ended, all of it done or all of it undone, and that nothing is left over.

    Ends with 1 and a list where anything is wrong, and with 3 where a service can't be asked.
    """
    verdict = asyncio.run(_judge(timedelta(seconds=settled), service))
    complain_of_gaps(verdict.unreachable)
    if verdict.unreachable:
        complain("error: without them no saga can be judged")
        leave(ExitCode.AWAY)
    if verdict.violations or output is not Format.TABLE:
        print_rows([asdict(each) for each in verdict.violations], output, columns=_COLUMNS)
    _sum_up(verdict)
    leave(ExitCode.PROBLEM if verdict.violations else ExitCode.FINE)


async def _judge(settled: timedelta, service: list[str] | None) -> Verdict:
    from toolkit.verdict import judge

    before = SystemClock().now() - settled if settled else None
    async with opened(service) as sources:
        with counting() as progress:
            return await judge(
                sources, checks=checks_of(package_name()), broker=_broker(), settled_before=before, progress=progress
            )


def checks_of(package: str) -> Sequence[Check]:
    """Return the services' own checks: `CHECKS` of `<package>.accounts`, where there is such a module."""
    if not hasattr(import_here(package), "__path__") or find_spec(f"{package}.accounts") is None:
        return ()
    checks: Sequence[Check] = getattr(import_here(f"{package}.accounts"), "CHECKS", ())
    return checks


def _broker() -> Settings | None:
    """Return the settings if they name a broker: the default one may be anybody's."""
    return load_settings() if "SAGA_BROKER_URL" in os.environ else None


def _sum_up(verdict: Verdict) -> None:
    for what in dict.fromkeys(verdict.unchecked):
        complain(f"warning: not checked: {what}")
    if verdict.left_out:
        complain(f"left out: {verdict.left_out} sagas that have just moved, or of which a part was pruned")
    count = len(verdict.violations)
    complain(f"{verdict.sagas} sagas judged, {'all is right' if not count else f'{count} violations'}")
