"""`saga new`: a project to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The project, and its directory: ticket-shop, for example.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the files' names, and write none.")] = False,
) -> None:
    """Make a project: two services, tests, containers and CI.

    Prints the files that it writes into a new directory below this one.
    """
    from toolkit.cli.exit_codes import UsageError, complain
    from toolkit.cli.project_files import project_files, write_project

    directory, files = Path(name), project_files(name)
    if directory.exists():
        raise UsageError(f"{directory} exists already: give another name, or remove it first")
    if not dry_run:
        write_project(directory, files)
    for path in files:
        typer.echo(directory / path)
    if not dry_run:
        complain(f"next: cd {name}, and run the two commands of its README.md")
