"""`saga graph`: the declared choreography."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from toolkit.cli.service_discovery import discover, package_name


class Drawing(StrEnum):
    """How the choreography is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"


def graph(
    drawing: Annotated[Drawing, typer.Option("--format", help="A page to read, or a Mermaid chart.")] = Drawing.TEXT,
) -> None:
    """Draw which step consumes and emits which event.

    From the declarations; it asks no running service.
    """
    from toolkit.declaration.choreography import Choreography, as_mermaid, as_text

    draw = {Drawing.TEXT: as_text, Drawing.MERMAID: as_mermaid}[drawing]
    typer.echo(draw(Choreography(discover(package_name()).values())))
