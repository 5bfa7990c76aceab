"""`saga ls`: the sagas that were moved last, and how they stand as all services together see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.exit_codes import ExitCode, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import console, print_rows, with_types
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock
from toolkit.protocol.fence import SagaState

if TYPE_CHECKING:
    from toolkit.client.controls import Controls
    from toolkit.client.sources import Rows
    from toolkit.operations.search import Search
    from toolkit.persistence.saga_log import SagaKey
    from toolkit.protocol.timeline import Timeline

_COLUMNS = ("saga_id", "saga_type", "state", "last_step", "last_state", "age")
#: What a narrow terminal has room for.
_FEWER, _NARROW = ("saga_id", "state", "last_step", "age"), 110


def ls(
    state: Annotated[SagaState | None, typer.Option(help="Only sagas that stand so.")] = None,
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
    async with opened(service) as known:
        return await latest_sagas(known, limit, state)


async def latest_sagas(
    services: Sequence[Controls], limit: int, state: SagaState | None = None
) -> tuple[list[Timeline], Mapping[str, str]]:
    """Return the stories of the sagas that moved last, and who can't be asked.

    One service's word is not enough: to the inventory a saga is pending that the payment has long refused. So each
    tells what it moved last, and then all of them are asked of those sagas.
    """
    from toolkit.client.sources import ask_all
    from toolkit.client.timelines import timelines_of
    from toolkit.operations.search import Search

    answers = await ask_all(services, lambda each: _moved_last(each, Search(state=state), limit))
    reachable = [each for each in services if each.service in answers.by_service]
    timelines = await timelines_of(_latest(answers.by_service.values(), limit), reachable)
    chosen = [timeline for timeline in timelines if timeline.entries and state in (None, timeline.state)]
    lost = {name: reason for timeline in timelines for name, reason in timeline.unreachable.items()}
    return chosen, answers.unreachable | lost


async def _moved_last(service: Controls, which: Search, limit: int) -> Rows:
    """Return as many sagas as are wanted, if there are so many; a page may come back short."""
    rows, cursor = await service.search(which, limit=limit)
    while cursor is not None and len(rows) < limit:
        more, cursor = await service.search(which, limit=limit - len(rows), cursor=cursor)
        rows += more
    return rows


def _latest(answers: Iterable[Rows], limit: int) -> list[SagaKey]:
    moved: dict[SagaKey, datetime] = {}
    for row in (row for rows in answers for row in rows):
        saga = row["saga_type"], row["saga_id"]
        moved[saga] = max(row["at"], moved.get(saga, row["at"]))
    return sorted(moved, key=lambda saga: moved[saga], reverse=True)[:limit]


def summary(timeline: Timeline, now: datetime) -> dict[str, Any]:
    """Return what a list has room for of one saga."""
    started_at = min(entry["at"] for entry in timeline.entries)
    last = timeline.last_move or timeline.entries[-1]
    return {
        "saga_id": timeline.saga_id,
        "saga_type": timeline.saga_type,
        "state": timeline.state,
        "last_step": last["step"],
        "last_state": last["to_state"],
        "started_at": started_at,
        "moved_at": max(entry["at"] for entry in timeline.entries),
        "age": age_of(now - started_at),
    }


def age_of(span: timedelta) -> str:
    """Return a span in its largest unit, as people say it."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
