"""`saga trigger`: start sagas, and if asked to, wait for what becomes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated

import typer

from toolkit.cli.discovery import discover, package_name, sagas_of, see_that_steps_exist
from toolkit.cli.exits import ExitCode, UsageError, complain, leave
from toolkit.cli.locating import ServicesOption, opened
from toolkit.cli.output import Format, FormatOption, print_json
from toolkit.cli.payload import build_events
from toolkit.cli.sending import publisher_for, send
from toolkit.cli.stories import complain_of_gaps
from toolkit.cli.waiting import MOST_SECONDS, progress, wait_until_ended
from toolkit.clock import SystemClock
from toolkit.events import Event, Saga, SagaState
from toolkit.logs import configure_logs
from toolkit.service import Service
from toolkit.settings import Settings, load_settings
from toolkit.story import Story


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
    services = discover(package_name())
    saga = _started_by(event, sagas_of(services))
    events = build_events(saga, data, changes or [], count)
    patience = None if wait is None else timedelta(seconds=wait)
    settings = load_settings()
    if settings.broker_url == "embedded":
        see_that_steps_exist(settings, services)
    stories = asyncio.run(_start(services.values(), saga, events, patience, service, settings))
    _print(stories, saga, output)
    if patience is not None:
        _report(stories)


def _started_by(event: str, sagas: Sequence[Saga]) -> Saga:
    starts = {saga.starts_with.__name__: saga for saga in sagas}
    if event not in starts:
        raise UsageError(f"no saga starts with {event!r}; those that start one: {', '.join(sorted(starts))}")
    return starts[event]


async def _start(
    services: Iterable[Service],
    saga: Saga,
    events: dict[str, Event],
    patience: timedelta | None,
    named: list[str] | None,
    settings: Settings,
) -> list[Story]:
    configure_logs(settings.model_copy(update={"log_level": "error"}))
    async with publisher_for(services, settings) as publisher:
        if patience is None:
            await send(saga, events, publisher, clock=SystemClock())
            return [Story(saga_id, []) for saga_id in events]
        # Before anything is sent: who can't be told of the outcome shall learn that now.
        async with opened(named) as sources:
            until = time.monotonic() + patience.total_seconds()
            await send(saga, events, publisher, clock=SystemClock(), patience=patience)
            with progress() as bar:
                task = bar.add_task("sagas ended", total=len(events))
                left = timedelta(seconds=max(until - time.monotonic(), 0))
                return await wait_until_ended(list(events), sources, within=left, ended=lambda _: bar.advance(task))


def _print(stories: Iterable[Story], saga: Saga, output: Format) -> None:
    if output is Format.TABLE:
        typer.echo("\n".join(story.saga_id for story in stories))
    else:
        rows = [{"saga_id": story.saga_id, "saga_type": saga.name, "state": story.state} for story in stories]
        print_json(rows, output)


def _report(stories: Sequence[Story]) -> None:
    """Say how the sagas ended, and leave accordingly."""
    completed = [story.saga_id for story in stories if story.state is SagaState.COMPLETED]
    failed = [story for story in stories if story.state is SagaState.FAILED]
    running = [story for story in stories if story.state is None or not story.state.is_ended]
    if completed:
        complain(f"{completed[0] if len(completed) == 1 else f'{len(completed)} sagas'} completed")
    for story in failed:
        complain(f"{story.saga_id} failed: {_reason(story)}")
    for story in running:
        complain(f"{story.saga_id} has not ended in time, it is {story.state or 'unknown to all services'}")
    complain_of_gaps({name: reason for story in running for name, reason in story.unreachable.items()})
    leave(ExitCode.PROBLEM if failed else ExitCode.AWAY if running else ExitCode.FINE)


def _reason(story: Story) -> str:
    """Return what was told of the first refusal."""
    errors = (str(entry["error"]) for entry in story.entries if entry["to_state"] == "failed" and entry["error"])
    return next(errors, "see `saga trace`")
