"""The console upon which tables are printed."""

from __future__ import annotations

from rich.console import Console


class Terminal(Console):
    """A console that leaves it to the command to end where nobody reads any more; rich's own ends it with 1."""

    def on_broken_pipe(self) -> None:
        """Let the error go on, which rich is just handling."""
        raise
