"""`saga ls`: the sagas that moved last, with their states as all services together show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import console, print_rows, with_types
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock
from toolkit.protocol.fence import SagaState
from toolkit.protocol.rows import Row

if TYPE_CHECKING:
    from toolkit.protocol.timeline import Timeline

_COLUMNS = ("saga_id", "saga_type", "state", "last_step", "last_state", "age")
#: What a narrow terminal has room for.
_FEWER, _NARROW = ("saga_id", "state", "last_step", "age"), 110


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaSummary(Row):
    """A saga of the list, as all services together show it."""

    saga_id: str
    saga_type: str | None
    state: SagaState | None
    last_step: str
    last_state: str
    started_at: datetime
    moved_at: datetime
    age: str


def ls(
    state: Annotated[SagaState | None, typer.Option(help="Only sagas in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The latest moved so many.")] = 20,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List sagas, the latest moved first.

    Ends with 3 where a service can't be asked.
    """
    from toolkit.cli.timelines import complain_of_gaps

    timelines, unreachable = run_async(_read(state, limit, service))
    now = SystemClock().now()
    rows = [summary(timeline, now) for timeline in timelines]
    print_rows(rows, output, columns=with_types(_FEWER, rows) if console().width < _NARROW else _COLUMNS)
    complain_of_gaps(unreachable)
    leave(ExitCode.AWAY if unreachable else ExitCode.FINE)


async def _read(
    state: SagaState | None, limit: int, service: list[str] | None
) -> tuple[list[Timeline], Mapping[str, str]]:
    from toolkit.client.saga_report import latest_sagas

    async with opened(service) as known:
        return await latest_sagas(known, limit, state)


def summary(timeline: Timeline, now: datetime) -> SagaSummary:
    """Return one saga's row of a list."""
    started_at = min(entry.at for entry in timeline.entries)
    last = timeline.last_move or timeline.entries[-1]
    return SagaSummary(
        saga_id=timeline.saga_id,
        saga_type=timeline.saga_type,
        state=timeline.state,
        last_step=last.step,
        last_state=last.to_state,
        started_at=started_at,
        moved_at=max(entry.at for entry in timeline.entries),
        age=age_of(now - started_at),
    )


def age_of(span: timedelta) -> str:
    """Return a span in its largest unit."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
