"""The console upon which tables are printed."""

from __future__ import annotations

from rich.console import Console


class Terminal(Console):
    """A console that lets the command handle a closed pipe; rich's own ends the process with 1."""

    def on_broken_pipe(self) -> None:
        """Let the error go on, which rich is just handling."""
        raise
