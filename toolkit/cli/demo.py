"""`saga demo`: the services' own demonstration, `main()` of `<package>.demo`."""

from __future__ import annotations

from toolkit.cli.discovery import import_here, package_name
from toolkit.cli.exits import ExitCode, leave


def demo() -> None:
    """Run sagas that go well and sagas that don't, in one process, and show what became of them."""
    leave(ExitCode(import_here(f"{package_name()}.demo").main()))
