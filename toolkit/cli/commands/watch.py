"""`saga watch`: all services' statistics and the sagas that moved last, each second again."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.commands.ls import summary
from toolkit.cli.commands.stats import columns, complain_of_silence, figures, snapshots_of
from toolkit.cli.exit_codes import ExitCode, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, IntervalOption, ServicesOption
from toolkit.cli.output import console, print_json, table_of, text_of
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from toolkit.client.service_client import ServiceClient
    from toolkit.protocol.timeline import Timeline
    from toolkit.tracking.snapshot import Snapshot

_SAGAS = ("saga_id", "state", "last_step", "last_state", "age")


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be seen at one moment."""

    at: datetime
    snapshots: Mapping[str, Snapshot]
    timelines: Sequence[Timeline]
    unreachable: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "at": self.at,
            "services": [snapshot.model_dump() for snapshot in self.snapshots.values()],
            "sagas": [summary(timeline, self.at) for timeline in self.timelines],
            "unreachable": dict(self.unreachable),
        }


def watch(
    interval: IntervalOption = 1.0,
    limit: Annotated[int, typer.Option(min=1, max=100, help="The sagas that moved last, so many.")] = 10,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Watch all services, and the sagas that moved last.

    Ctrl-C ends it. Where standard output is no terminal, or something else than a table is wanted, it is one look; that
    ends with 3 where a service can't be asked.
    """
    if output is Format.TABLE and sys.stdout.isatty():
        _watch(interval, limit, service)
        return
    sight = run_async(_look_once(limit, service))
    if output is Format.TABLE:
        console().print(_drawn(sight))
    else:
        print_json(sight.as_dict(), output)
    complain_of_silence(sight.unreachable)
    leave(ExitCode.AWAY if sight.unreachable else ExitCode.FINE)


def _watch(interval: float, limit: int, service: list[str] | None) -> None:
    try:
        run_async(_look_again_and_again(interval, limit, service))
    except KeyboardInterrupt:  # which is how one stops watching
        return


async def _look_again_and_again(interval: float, limit: int, service: list[str] | None) -> None:
    import asyncio

    from rich.live import Live

    async with opened(service) as known:
        with Live(console=console(), auto_refresh=False, screen=False) as live:
            while True:
                live.update(_drawn(await _look(known, limit)), refresh=True)
                await asyncio.sleep(interval)


async def _look_once(limit: int, service: list[str] | None) -> Sight:
    async with opened(service) as known:
        return await _look(known, limit)


async def _look(services: Sequence[ServiceClient], limit: int) -> Sight:
    import asyncio

    from toolkit.client.saga_report import latest_sagas

    answers, (timelines, lost) = await asyncio.gather(snapshots_of(services), latest_sagas(services, limit))
    return Sight(SystemClock().now(), answers.by_service, timelines, {**lost, **answers.unreachable})


def _drawn(sight: Sight) -> Group:
    from rich.console import Group
    from rich.text import Text

    at = sight.at.astimezone(UTC).strftime("%H:%M:%S")
    return Group(Text(f"{at} UTC", style="dim"), _services(sight), Text(), _sagas(sight))


def _services(sight: Sight) -> Table:
    from rich.text import Text

    shown = columns()
    rows = [[text_of(figures(snapshot)[column]) for column in shown] for snapshot in sight.snapshots.values()]
    away = [name for name in sight.unreachable if name not in sight.snapshots]
    blank = [text_of(None)] * (len(shown) - 2)
    rows += [[text_of(name), Text("unreachable", style="bold red"), *blank] for name in away]
    return table_of(shown, rows)


def _sagas(sight: Sight) -> Table:
    from toolkit.cli.timelines import styled_state

    rows = []
    for timeline in sight.timelines:
        row = summary(timeline, sight.at)
        state = styled_state(timeline.state)
        rows.append([state if name == "state" else text_of(getattr(row, name)) for name in _SAGAS])
    return table_of(_SAGAS, rows)
