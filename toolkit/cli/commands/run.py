"""`saga run`: one service, until a signal stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, UsageError, code_of, complain, leave
from toolkit.cli.service_discovery import (
    check_logins,
    check_step_reminders,
    check_step_timeouts,
    discover,
    find_service,
    package_name,
)
from toolkit.errors import SagaError

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings
    from toolkit.supervision.worker import Worker


def run(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="A service's name, or module:attribute.")],
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, metavar="N", help="Run N processes that share the work. [default: SAGA_WORKERS]"),
    ] = None,
) -> None:
    """Run a service, until SIGTERM or Ctrl-C.

    It finishes what is under way, and ends with 0.
    """
    from toolkit.configuration.settings import load_settings
    from toolkit.supervision.worker import Worker

    worker = Worker.of_this_process()
    if worker:
        _work(service, worker)
        return
    settings = load_settings()
    if settings.broker_url == "embedded":
        raise UsageError(
            "SAGA_BROKER_URL=embedded is one process for all services, and `saga run` is one of several: "
            "name a broker, or let `saga demo` or `saga trigger` run them all"
        )
    count = workers or settings.workers
    if count == 1:
        _serve(service, settings)
    else:
        _supervise(service, settings, count)


def _serve(service: str, settings: Settings, worker: Worker | None = None) -> None:
    """Run the service in this process."""
    from toolkit.extras import require

    require("api", "saga run")
    require("rabbitmq", "saga run")
    from toolkit.service_process import run_service

    found = find_service(service)
    if ":" not in service:  # the other services of one from elsewhere are not known
        services = discover(package_name())
        check_step_timeouts(settings, services)
        check_step_reminders(settings, services)
        check_logins(settings, services)
    leave(ExitCode(run_service(found, settings, worker)))


def _supervise(service: str, settings: Settings, count: int) -> None:
    """Run the service in processes of its own."""
    from toolkit.supervision.supervisor import supervise

    outcome = supervise(service, settings, count)
    if outcome.error:
        complain(f"error: {outcome.error}")
    if outcome.code:
        raise typer.Exit(outcome.code)


def _work(service: str, worker: Worker) -> None:
    """Be one of a service's workers; an expected error is reported, and printed once for all."""
    from toolkit.configuration.settings import load_settings

    worker.share_metrics()
    try:
        _serve(service, load_settings(), worker)
    except SagaError as error:
        worker.report_error(str(error))
        raise typer.Exit(code_of(error)) from error
