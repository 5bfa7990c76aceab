"""`saga demo`: the services' own demonstration, `main()` of `<package>.demo`, or that of an example."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, leave
from toolkit.cli.interrupts import heeding
from toolkit.cli.service_discovery import find_demo


def demo(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="An example: approval, orchestrated, transfer or travel; without it, the services' own demo.",
        ),
    ] = None,
) -> None:
    """Run sagas that go well and some that don't, in one process.

    Shows what became of each. Ends with 1 where one did not end as it should.
    """
    leave(ExitCode(heeding(find_demo(name).main)))
