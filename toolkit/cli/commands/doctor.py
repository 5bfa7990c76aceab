"""`saga doctor`: misconfigurations of broker, databases and services, each with its cure."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_json, print_table, text_of
from toolkit.errors import SettingsError

if TYPE_CHECKING:
    from rich.text import Text

    from toolkit.doctor import Finding

_SIGNS = {"fine": ("✓", "green"), "problem": ("✗", "red"), "advice": ("!", "yellow"), "unchecked": ("?", "magenta")}
#: The most serious findings come last, where a terminal still shows them.
_ORDER = ("fine", "advice", "unchecked", "problem")
_MANAGEMENT_URL = "SAGA_MANAGEMENT_URL"
_COLUMNS = ("", "check", "service", "found")


def doctor(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Only these; else all that are known here.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also try well-known passwords, and publish unroutable messages.")
    ] = False,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Look for misconfigurations, and name each one's cure.

    Asks broker, databases and services. Changes nothing. Ends with 1 if there is a problem, and with 3 if a fact is
    missing.
    """
    for client in ("aio_pika", "aiormq"):  # the checks report what these would log
        logging.getLogger(client).addHandler(logging.NullHandler())
    findings = run_async(_examine(services or [], service, is_probing=probe))
    _print(findings, output)
    _sum_up(findings, is_probing=probe)
    severities = {each.severity.value for each in findings}
    leave(
        ExitCode.PROBLEM if "problem" in severities else ExitCode.AWAY if "unchecked" in severities else ExitCode.FINE
    )


async def _examine(names: Sequence[str], located: list[str] | None, *, is_probing: bool) -> list[Finding]:
    from toolkit.cli.doctor_targets import targets_of
    from toolkit.configuration.settings import load_settings
    from toolkit.doctor import examine

    settings, management_url = load_settings(), _management_url()
    targets = targets_of(names, located, settings)
    try:
        with _spinner():
            return await examine(targets, settings, os.environ, management_url=management_url, is_probing=is_probing)
    finally:
        for target in targets:
            if target.client:
                await target.client.close()


def _management_url() -> str | None:
    """Return the URL of the broker's management API; None if it is not set.

    Raises:
        SettingsError: it is no URL.
    """
    from toolkit.configuration.environment import secret_variable
    from toolkit.configuration.server_urls import has_sound_address

    url = secret_variable(_MANAGEMENT_URL)
    try:
        if not url or (url.startswith(("http://", "https://")) and urlsplit(has_sound_address(url)).hostname):
            return url or None
    except ValueError:
        pass
    raise SettingsError(f"{_MANAGEMENT_URL} is not allowed: give http://name:password@host:15672")


@contextmanager
def _spinner() -> Iterator[None]:
    """Show on standard error, in a terminal, that the command works."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status("examining broker, databases and services"):
        yield


def _print(findings: Sequence[Finding], output: Format) -> None:
    if output is not Format.TABLE:
        print_json([asdict(each) for each in findings], output)
        return
    ordered = sorted(findings, key=lambda each: _ORDER.index(each.severity.value))
    print_table(_COLUMNS, [*_fine_rows(ordered), *(_row(each) for each in ordered if each.severity.value != "fine")])


def _fine_rows(findings: Sequence[Finding]) -> list[list[Text | str]]:
    """Return a row for each fine finding, with all services that have it."""
    same: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in findings:
        if each.severity.value == "fine":
            same[each.check, each.found] += [each.service] if each.service else []
    return [
        [_sign("fine"), check, text_of(", ".join(dict.fromkeys(names)) or "-"), text_of(found)]
        for (check, found), names in same.items()
    ]


def _row(finding: Finding) -> list[Text | str]:
    """Return the finding, why it matters and its cure, one below the other: all are long."""
    from rich.text import Text

    text = Text.assemble(
        text_of(finding.found), "\n", (f"why: {finding.why}", "dim"), "\ncure: ", text_of(finding.cure or "-")
    )
    return [_sign(finding.severity.value), finding.check, text_of(finding.service), text]


def _sign(severity: str) -> Text:
    from rich.text import Text

    sign, colour = _SIGNS[severity]
    return Text(sign, style=colour)


def _sum_up(findings: Sequence[Finding], *, is_probing: bool) -> None:
    from toolkit.doctor import CHECKS

    count = Counter(each.severity.value for each in findings)
    counts = f"problems: {count['problem']}, advice: {count['advice']}, not checked: {count['unchecked']}"
    complain(f"{len({each.check for each in findings})} checks; {counts}")
    if not is_probing:
        complain(f"only with --probe: {', '.join(each.name for each in CHECKS if each.is_probe)}")
