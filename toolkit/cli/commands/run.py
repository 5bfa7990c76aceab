"""`saga run`: one service, until a signal stops it."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, UsageError, leave
from toolkit.cli.service_discovery import (
    check_logins,
    check_step_timeouts,
    discover,
    find_service,
    package_name,
)


def run(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="A service's name, or module:attribute.")],
) -> None:
    """Run a service, until SIGTERM or Ctrl-C.

    It finishes what is under way, and ends with 0.
    """
    from toolkit.app import run_service
    from toolkit.configuration.settings import load_settings

    found, settings = find_service(service), load_settings()
    if settings.broker_url == "embedded":
        raise UsageError(
            "SAGA_BROKER_URL=embedded is one process for all services, and `saga run` is one of several: "
            "name a broker, or let `saga demo` or `saga trigger` run them all"
        )
    if ":" not in service:  # the other services of one from elsewhere are not known
        services = discover(package_name())
        check_step_timeouts(settings, services)
        check_logins(settings, services)
    leave(ExitCode(run_service(found, settings)))
