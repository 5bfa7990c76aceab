"""`saga trigger`: start sagas, and wait for their ends if asked to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.exit_codes import ExitCode, UsageError, complain, leave
from toolkit.cli.interrupts import heeding_sigterm, held, run_async
from toolkit.cli.options import MOST_SECONDS, Format, FormatOption, ServicesOption
from toolkit.cli.output import print_json
from toolkit.cli.progress_bars import progress
from toolkit.cli.service_discovery import check_step_reminders, check_step_timeouts, discover, package_name, sagas_of
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock
from toolkit.protocol.fence import SagaState

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings
    from toolkit.declaration.events import Event, Saga
    from toolkit.declaration.service import Service
    from toolkit.protocol.timeline import Timeline


def trigger(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event that starts the saga.")],
    data: Annotated[str | None, typer.Option(metavar="JSON|@FILE|-", help="Its fields; else an example's.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one: items.0.sku=SOLD-OUT.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Start so many, with fresh ids.")] = 1,
    wait: Annotated[
        float | None, typer.Option(min=0, max=MOST_SECONDS, metavar="SECONDS", help="Wait for the sagas to end.")
    ] = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Start sagas, and print their ids.

    With --wait it ends with 0 if all completed, 1 if any failed, and 3 if any was not done in time.
    """
    from toolkit.cli.payload import build_events
    from toolkit.configuration.settings import load_settings

    services = discover(package_name())
    saga = _started_by(event, sagas_of(services))
    events = build_events(saga, data, changes or [], count)
    patience = None if wait is None else timedelta(seconds=wait)
    settings = load_settings()
    if settings.broker_url == "embedded":
        check_step_timeouts(settings, services)
        check_step_reminders(settings, services)
    started = _Started(saga, events, output)
    with heeding_sigterm():
        try:
            run_async(_start(services.values(), started, patience, service, settings))
        except KeyboardInterrupt:
            complain(started.how_far())
            raise
        finally:
            with held():
                started.close()
    if patience is not None:
        _report(started.timelines())


class _Started:
    """The sagas that have been started so far, and their ids on standard output, whatever happens then.

    To people an id is shown as soon as its event is stored; JSON is written at the end, with the sagas' states.
    """

    def __init__(self, saga: Saga, events: Mapping[str, Event], output: Format) -> None:
        self.saga = saga
        self.events = events
        self._output = output
        self._timelines: dict[str, Timeline] = {}

    def sent(self, saga_id: str) -> None:
        """Record that a saga's event is stored."""
        from toolkit.protocol.timeline import Timeline

        self._timelines[saga_id] = Timeline(saga_id, [])
        if self._output is Format.TABLE:
            typer.echo(saga_id)

    def seen(self, timeline: Timeline) -> None:
        """Record a saga's timeline."""
        self._timelines[timeline.saga_id] = timeline

    def timelines(self) -> list[Timeline]:
        """Return all that were sent, in the order in which they were to be."""
        return [self._timelines[saga_id] for saga_id in self.events if saga_id in self._timelines]

    def how_far(self) -> str:
        """Return how many events were sent; an unconfirmed one is not counted."""
        text = f"{len(self._timelines)} of {len(self.events)} sent"
        if len(self._timelines) < len(self.events):
            return text
        ended = sum(timeline.state is not None and timeline.state.is_ended for timeline in self._timelines.values())
        return f"{text}, {ended} of them known to have ended"

    def close(self) -> None:
        """Write what is written at the end."""
        if self._timelines and self._output is not Format.TABLE:
            rows = [
                {"saga_id": each.saga_id, "saga_type": self.saga.name, "state": each.state} for each in self.timelines()
            ]
            print_json(rows, self._output)


def _started_by(event: str, sagas: Sequence[Saga]) -> Saga:
    starts = {saga.starts_with.__name__: saga for saga in sagas}
    if event not in starts:
        raise UsageError(f"no saga starts with {event!r}; those that start one: {', '.join(sorted(starts))}")
    return starts[event]


async def _start(
    services: Iterable[Service],
    started: _Started,
    patience: timedelta | None,
    named: list[str] | None,
    settings: Settings,
) -> None:
    from toolkit.client.starting import client_tracing, publisher_for, send
    from toolkit.client.waiting import wait_until_ended
    from toolkit.observability.logs import configure_logs

    configure_logs(settings.model_copy(update={"log_level": "error"}))
    saga, events = started.saga, started.events
    async with publisher_for(services, settings) as publisher:
        sending: Any = {"clock": SystemClock(), "patience": patience or timedelta(0), "sent": started.sent}
        if patience is None:
            async with client_tracing(settings) as tracing:
                await send(saga, events, publisher, tracing=tracing, **sending)
            return
        # Before anything is sent: an outcome that can't be read is reported now.
        async with opened(named) as clients:
            until = time.monotonic() + patience.total_seconds()
            async with client_tracing(settings) as tracing:
                await send(saga, events, publisher, tracing=tracing, **sending)
            with progress() as bar:
                task = bar.add_task("sagas ended", total=len(events))

                def ended(timeline: Timeline) -> None:
                    started.seen(timeline)
                    bar.advance(task)

                left = timedelta(seconds=max(until - time.monotonic(), 0))
                for timeline in await wait_until_ended(saga.name, list(events), clients, within=left, ended=ended):
                    started.seen(timeline)


def _report(timelines: Sequence[Timeline]) -> None:
    """Report how the sagas ended, and leave with the exit code for it."""
    from toolkit.cli.timelines import complain_of_gaps

    completed = [timeline.saga_id for timeline in timelines if timeline.state is SagaState.COMPLETED]
    failed = [timeline for timeline in timelines if timeline.state is SagaState.FAILED]
    running = [timeline for timeline in timelines if timeline.state is None or not timeline.state.is_ended]
    if completed:
        complain(f"{completed[0] if len(completed) == 1 else f'{len(completed)} sagas'} completed")
    for timeline in failed:
        complain(f"{timeline.saga_id} failed: {_reason(timeline)}")
    for timeline in running:
        complain(f"{timeline.saga_id} has not ended in time, it is {timeline.state or 'unknown to all services'}")
    complain_of_gaps({name: reason for timeline in running for name, reason in timeline.unreachable.items()})
    leave(ExitCode.PROBLEM if failed else ExitCode.AWAY if running else ExitCode.FINE)


def _reason(timeline: Timeline) -> str:
    """Return the reason of the first refusal."""
    errors = (str(entry.error) for entry in timeline.entries if entry.to_state == "failed" and entry.error)
    return next(errors, "see `saga trace`")
