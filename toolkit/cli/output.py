"""Printing data: a table for people, JSON or one JSON object a line for programs.

A table that goes into a pipe is neither cut nor wrapped nor coloured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli.exit_codes import complain, printable
from toolkit.cli.interrupts import held
from toolkit.cli.options import Format
from toolkit.protocol.rows import Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: Rows to print: typed ones, or those that a command makes to be shown.
Rows = Sequence[Row] | Sequence[Mapping[str, Any]]

#: Wider than any row: what is piped goes to a program, and that has no edge.
_PIPE_WIDTH = 10_000
#: How many characters of a text a table shows: an exception may quote a page, at each attempt.
_LONGEST_CELL = 160


def console() -> Console:
    """Return a console upon standard output as it is now."""
    from toolkit.cli.terminal import Terminal

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Terminal(file=sys.stdout, width=width, highlight=False)


def print_rows(rows: Rows, output: Format, *, columns: Sequence[str]) -> None:
    """Print rows: all of their fields to programs, these columns to people."""
    if output is Format.TABLE and not rows:
        complain("none")
    elif output is Format.TABLE:
        print_table(columns, [[_cell(column, _value(row, column)) for column in columns] for row in rows])
    else:
        print_json(list(rows), output)


def with_types(columns: Sequence[str], rows: Rows) -> Sequence[str]:
    """Return these columns, with the sagas' types before their ids where the rows are of several types."""
    if len({_value(row, "saga_type") for row in rows} - {None, ""}) < 2:
        return columns
    at = columns.index("saga_id")
    return (*columns[:at], "saga_type", *columns[at:])


def print_some(rows: Rows, output: Format, *, columns: Sequence[str]) -> None:
    """Print rows as `print_rows` does; where there are none, the command itself prints why."""
    if rows or output is not Format.TABLE:
        print_rows(rows, output, columns=columns)


@contextmanager
def printing(rows: Rows, output: Format, *, columns: Sequence[str]) -> Iterator[None]:
    """Print these rows at the end; those that there are by then, if it breaks off."""
    try:
        yield
    except BaseException:  # Ctrl-C, too: what was done until then was done
        if rows:
            with held():
                print_rows(rows, output, columns=columns)
        raise
    with held():
        print_some(rows, output, columns=columns)


def print_json(content: Any, output: Format) -> None:
    """Print data as one JSON document, or as one line for each of its items."""
    from toolkit.json_output import as_json

    if output is Format.JSON:
        typer.echo(as_json(content, indent=2).encode())
        return
    for item in content if isinstance(content, list) else [content]:
        typer.echo(as_json(item).encode())


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print one thing as its fields, a name and a value each; a text of several lines below its name."""
    from rich.text import Text

    from toolkit.json_output import as_json

    for name, value in fields.items():
        text = text_of(as_json(value) if isinstance(value, dict | list) else value, keep="\n")
        apart = "\n" if "\n" in text.plain else " "
        console().print(Text.assemble((f"{name.replace('_', ' ')}:", "bold"), apart, text))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print a plain table with a line of headings."""
    console().print(table_of(columns, rows))


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """Return a plain table with a line of headings."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # An id is to be copied whole; what a narrow terminal has no room for is folded elsewhere.
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=_is_id(column))
    for row in rows:
        table.add_row(*row)
    return table


def shortened(value: Any) -> Text:
    """Return a value as a table has room for it; programs get it whole."""
    from rich.text import Text

    text = text_of(value)
    return text if len(text) <= _LONGEST_CELL else Text(f"{text.plain[: _LONGEST_CELL - 1]}…")


def _value(row: Row | Mapping[str, Any], column: str) -> Any:
    return getattr(row, column) if isinstance(row, Row) else row[column]


def _cell(column: str, value: Any) -> Text:
    return text_of(value) if _is_id(column) else shortened(value)


def _is_id(column: str) -> bool:
    return column.endswith("id")


def text_of(value: Any, *, keep: str = "") -> Text:
    """Return a value as people read it; text from elsewhere is never markup, and its control characters are seen."""
    from rich.text import Text

    if isinstance(value, datetime):
        return Text(value.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z"))
    return Text("-" if value is None else printable(str(value), keep=keep))
