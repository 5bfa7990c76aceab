"""The options that several verbs share. They are read at every start, so nothing here takes long to import."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


#: Seconds; a shorter one costs the services more than it shows.
_SHORTEST_INTERVAL = 0.2
#: Ten years; infinity is not allowed.
MOST_SECONDS = 3650 * 86_400.0

FormatOption = Annotated[Format, typer.Option("-o", "--output", help="For people, or for programs.")]
IntervalOption = Annotated[
    float, typer.Option(min=_SHORTEST_INTERVAL, max=3_600, metavar="SECONDS", help="How often all is looked at again.")
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the audit.")]
TypeOption = Annotated[
    str | None,
    typer.Option("--type", metavar="NAME", help="The saga's type, where sagas of several types have the id."),
]
ServicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--service",
        metavar="NAME=URL",
        help="Where to read a service: http://…, sqlite:///path or postgresql://…; repeatable. "
        "Else SAGA_SERVICES, separated by commas; else the files in SAGA_DATA_DIR, or those of the last demo.",
    ),
]
