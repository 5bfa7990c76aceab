"""`saga doctor`: what is wrong with the set-up, found by asking the things themselves, and what cures it."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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

if TYPE_CHECKING:
    from toolkit.doctor import Finding

_SIGNS = {"fine": ("✓", "green"), "problem": ("✗", "red"), "advice": ("!", "yellow"), "unchecked": ("?", "magenta")}
#: What somebody has to do something about stands at the end, where a terminal still shows it.
_ORDER = ("fine", "advice", "unchecked", "problem")
_MANAGEMENT_URL = "SAGA_MANAGEMENT_URL"
_COLUMNS = ("", "check", "service", "found")


def doctor(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Only these; else all that are known here.")
    ] = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Look for misconfigurations, and name each one's cure.

    Asks broker, databases and services. Changes nothing. Ends with 1 where a problem was found, and with 3 where
    something could not be asked.
    """
    for client in ("aio_pika", "aiormq"):  # what they would say is found, and told, by the checks
        logging.getLogger(client).addHandler(logging.NullHandler())
    findings = run_async(_examine(services or [], service))
    _print(findings, output)
    _sum_up(findings)
    verdicts = {each.verdict.value for each in findings}
    leave(ExitCode.PROBLEM if "problem" in verdicts else ExitCode.AWAY if "unchecked" in verdicts else ExitCode.FINE)


async def _examine(names: Sequence[str], located: list[str] | None) -> list[Finding]:
    from toolkit.cli.doctor_targets import targets_of
    from toolkit.configuration.settings import load_settings
    from toolkit.doctor import examine

    settings, management_url = load_settings(), _management_url()
    targets = targets_of(names, located, settings)
    try:
        with _saying() as say:
            return await examine(targets, settings, os.environ, management_url=management_url, say=say)
    finally:
        for subject in targets:
            if subject.client:
                await subject.client.close()


def _management_url() -> str | None:
    """Return where the broker's management API is; None where nobody says.

    Raises:
        SettingsError: the address is none.
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
def _saying() -> Iterator[Callable[[str], None]]:
    """Show on standard error, in a terminal, what is being asked."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("asking") as status:
        yield lambda what: status.update(what)


def _print(findings: Sequence[Finding], output: Format) -> None:
    if output is not Format.TABLE:
        print_json([asdict(each) for each in findings], output)
        return
    ordered = sorted(findings, key=lambda each: _ORDER.index(each.verdict.value))
    print_table(_COLUMNS, [*_well(ordered), *(_row(each) for each in ordered if each.verdict.value != "fine")])


def _well(findings: Sequence[Finding]) -> list[list[Text | str]]:
    """Return a row for each check that found nothing wrong, with all services of which it says the same."""
    same: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in findings:
        if each.verdict.value == "fine":
            same[each.check, each.found] += [each.service] if each.service else []
    return [
        [_sign("fine"), check, text_of(", ".join(dict.fromkeys(names)) or "-"), text_of(found)]
        for (check, found), names in same.items()
    ]


def _row(finding: Finding) -> list[Text | str]:
    """Return what was found, why it matters and what cures it, one below the other: all are long."""
    from rich.text import Text

    told = Text.assemble(
        text_of(finding.found), "\n", (f"why: {finding.why}", "dim"), "\ncure: ", text_of(finding.cure or "-")
    )
    return [_sign(finding.verdict.value), finding.check, text_of(finding.service), told]


def _sign(verdict: str) -> Text:
    from rich.text import Text

    sign, colour = _SIGNS[verdict]
    return Text(sign, style=colour)


def _sum_up(findings: Sequence[Finding]) -> None:
    count = {verdict: sum(each.verdict.value == verdict for each in findings) for verdict in _ORDER}
    told = f"problems: {count['problem']}, advice: {count['advice']}, not checked: {count['unchecked']}"
    complain(f"{len({each.check for each in findings})} checks; {told}")
