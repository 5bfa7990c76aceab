"""`saga graph`: the declared choreography, and the checker's findings."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.service_discovery import discover, package_name

if TYPE_CHECKING:
    from toolkit.declaration.choreography import Choreography


class Drawing(StrEnum):
    """How the choreography is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"


def graph(
    drawing: Annotated[Drawing, typer.Option("--format", help="A page to read, or a Mermaid chart.")] = Drawing.TEXT,
    checked: Annotated[bool, typer.Option("--check", help="List what is wrong; end with 1 if anything is.")] = False,
) -> None:
    """Draw which step consumes and emits which event.

    From the declarations; it asks no running service.
    """
    from toolkit.declaration.choreography import Choreography, as_mermaid, as_text

    draw = {Drawing.TEXT: as_text, Drawing.MERMAID: as_mermaid}[drawing]
    choreography = Choreography(discover(package_name()).values())
    typer.echo(draw(choreography))
    if checked:
        _report(choreography)


def _report(choreography: Choreography) -> None:
    from toolkit.checker.rules import check

    findings = check(choreography)
    for finding in findings:
        complain(str(finding))
    if not findings:
        complain(f"no findings in {len(choreography.nodes)} steps and compensations")
    leave(ExitCode.PROBLEM if findings else ExitCode.FINE)
