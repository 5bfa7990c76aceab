"""`saga abort`: ask all services to refuse a saga's steps that have not begun; the done ones are undone in reverse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.operator import operator
from toolkit.cli.options import ReasonOption, ServicesOption, TypeOption
from toolkit.cli.service_discovery import discover, package_name
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock

if TYPE_CHECKING:
    from toolkit.protocol.timeline import Timeline


def abort(
    saga_id: Annotated[str, typer.Argument(metavar="ID", help="The saga's id.")],
    reason: ReasonOption,
    saga_type: TypeOption = None,
    service: ServicesOption = None,
) -> None:
    """Abort a saga, and undo what is done of it.

    Its first unfinished step refuses, and the steps before it are undone. A saga that is done by the time that the
    abort arrives stays done. Ends with 1 where the saga has ended or no service knows it, and with 3 where the broker
    does not answer.
    """
    from toolkit.cli.timelines import complain_of_gaps

    why = operator(reason).reason
    timeline = run_async(_read(saga_id, saga_type, service))
    if why_not := _why_not(timeline):
        complain_of_gaps(timeline.unreachable)
        complain(f"error: {why_not}")
        leave(ExitCode.AWAY if timeline.unreachable and not timeline.entries else ExitCode.PROBLEM)
        return
    run_async(_send(timeline, why))
    complain(f"all services were asked to abort {saga_id}; `saga trace {saga_id}` shows the outcome")


def _why_not(timeline: Timeline) -> str | None:
    """Return why there is nothing to abort, or None; an abort of an unknown saga would be a saga of its own."""
    if not timeline.entries:
        return f"no service knows a saga {timeline.saga_id!r}; `saga ls` lists those that they know"
    if timeline.state and timeline.state.is_ended:
        return f"saga {timeline.saga_id} has ended ({timeline.state}): there is nothing to abort"
    return None


async def _read(saga_id: str, saga_type: str | None, service: list[str] | None) -> Timeline:
    from toolkit.client.saga_report import detailed_timeline_of

    async with opened(service) as known:
        return await detailed_timeline_of(saga_id, saga_type, known)


async def _send(timeline: Timeline, reason: str) -> None:
    from toolkit.client.aborting import abort_message
    from toolkit.client.starting import publisher_for, send_all
    from toolkit.configuration.settings import load_settings
    from toolkit.observability.logs import configure_logs

    settings = load_settings()
    configure_logs(settings.model_copy(update={"log_level": "error"}))
    services = discover(package_name()) if settings.broker_url == "embedded" else {}
    async with publisher_for(services.values(), settings) as publisher:
        await send_all([abort_message(timeline, reason, now=SystemClock().now())], publisher)
