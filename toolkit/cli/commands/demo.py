"""`saga demo`: the services' own demonstration, `main()` of `<package>.demo`."""

from __future__ import annotations

from toolkit.cli.exit_codes import ExitCode, leave
from toolkit.cli.interrupts import heeding
from toolkit.cli.service_discovery import import_here, package_name


def demo() -> None:
    """Run sagas that go well and some that don't, in one process.

    Shows what became of each. Ends with 1 where one did not end as it should.
    """
    leave(ExitCode(heeding(import_here(f"{package_name()}.demo").main)))
