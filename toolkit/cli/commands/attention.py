"""`saga attention`: what is stuck in all services, and why, in one list."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_rows, with_types
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock
from toolkit.protocol.rows import Row

if TYPE_CHECKING:
    from toolkit.client.fan_out import Responses
    from toolkit.client.service_client import ServiceClient
    from toolkit.protocol.dead_letter_rows import DeadLetterGroup
    from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage

_COLUMNS = ("since", "service", "what", "count", "step", "saga_id", "why")
#: An event leaves its outbox within a second; one that is a minute old is stuck.
_OUTBOX_AGE = timedelta(minutes=1)
#: The rows that are read from an outbox: as many as a service returns at once.
_MOST_ROWS = 1_000


class Stuck(StrEnum):
    """The kinds of what is stuck, in a row's `what` and in `--only`."""

    NOT_READY = "not-ready"
    UNDECLARED_STEP = "undeclared-step"
    CONTRADICTION = "contradiction"
    OVERDUE = "overdue"
    DEAD_LETTER = "dead-letter"
    OUTBOX = "outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckRow(Row):
    """Something that is stuck, or a number of the same kind; without a time where a whole service is."""

    service: str
    what: str
    since: datetime | None = None
    count: int = 1
    step: str | None = None
    saga_type: str | None = None
    saga_id: str | None = None
    why: str
    details: dict[str, object] = field(default_factory=dict)


def attention(
    only: Annotated[
        list[Stuck] | None,
        typer.Option(
            metavar="KIND",
            help=f"Only this kind; repeatable: {', '.join(Stuck)}. `outbox` alone lists each event, not each service.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1_000, help="At most so many overdue steps, and contradictions, of each service.")
    ] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List what is stuck in all services, and why.

    Overdue steps, dead letters, unsent events, contradictions, sagas at undeclared steps, and services that are not
    ready. Ends with 1 if anything is stuck, and with 3 if a service is unreachable.
    """
    answers = run_async(_read(only or list(Stuck), limit, service))
    rows = [_unreachable(name, reason) for name, reason in answers.unreachable.items()]
    rows += [row for found in answers.by_service.values() for row in found]
    print_rows(sorted(rows, key=_sort_key), output, columns=with_types(_COLUMNS, rows))
    for name, reason in answers.unreachable.items():
        complain(f"warning: {name} is unreachable, so what is stuck there is missing here: {reason}")
    if answers.unreachable:
        leave(ExitCode.AWAY)
    leave(ExitCode.PROBLEM if rows else ExitCode.FINE)


async def _read(kinds: list[Stuck], limit: int, service: list[str] | None) -> Responses[list[StuckRow]]:
    from toolkit.client.fan_out import query_all

    now = SystemClock().now()
    async with opened(service) as known:
        return await query_all(known, lambda each: _stuck_in(each, kinds, limit, now))


async def _stuck_in(client: ServiceClient, kinds: list[Stuck], limit: int, now: datetime) -> list[StuckRow]:
    import asyncio

    readers: dict[Stuck, Callable[[], Coroutine[Any, Any, Iterable[StuckRow]]]] = {
        Stuck.NOT_READY: lambda: _unready(client),
        Stuck.UNDECLARED_STEP: lambda: _undeclared(client),
        Stuck.CONTRADICTION: lambda: _contradictions(client, limit),
        Stuck.OVERDUE: lambda: _overdue(client, limit),
        Stuck.DEAD_LETTER: lambda: _dead_letters(client),
        Stuck.OUTBOX: lambda: _unsent(client, now, is_grouped=kinds != [Stuck.OUTBOX]),
    }
    found = await asyncio.gather(*(read() for kind, read in readers.items() if kind in kinds))
    return [row for rows in found for row in rows]


def _sort_key(row: StuckRow) -> datetime:
    """Return a row's time; rows of services come first, since they have none."""
    return row.since or datetime.min.replace(tzinfo=UTC)


def _unreachable(service: str, reason: str) -> StuckRow:
    return StuckRow(service=service, what="unreachable", why=reason)


async def _unready(client: ServiceClient) -> list[StuckRow]:
    from toolkit.tracking.snapshot import lacks

    lacking = lacks(await client.ready())
    why = f"no {', '.join(lacking)}"
    return [StuckRow(service=client.service, what=Stuck.NOT_READY, why=why)] if lacking else []


async def _undeclared(client: ServiceClient) -> list[StuckRow]:
    return [
        StuckRow(
            service=client.service,
            what=Stuck.UNDECLARED_STEP,
            count=step.unfinished,
            step=step.step,
            saga_type=step.saga_type,
            why="sagas are under way at a step that the service does not declare, so nothing can undo it",
        )
        for step in await client.undeclared_steps()
        if step.unfinished
    ]


async def _contradictions(client: ServiceClient, limit: int) -> list[StuckRow]:
    return [
        StuckRow(
            service=client.service,
            what=Stuck.CONTRADICTION,
            since=step.since,
            step=step.step,
            saga_type=step.saga_type,
            saga_id=step.saga_id,
            why=step.error,
        )
        for step in await client.contradictions(limit=limit)
    ]


async def _overdue(client: ServiceClient, limit: int) -> list[StuckRow]:
    return [
        StuckRow(
            service=client.service,
            what=Stuck.OVERDUE,
            since=step.since,
            step=step.step,
            saga_type=step.saga_type,
            saga_id=step.saga_id,
            why=_why_overdue(step),
            details=_fields_of(step, "state", "saga_state", "nudges", "aborted"),
        )
        for step in await client.overdue(limit=limit)
    ]


def _why_overdue(step: OverdueStep) -> str:
    aborted = ", an abort was sent" if step.aborted else ""
    return f"{step.state}, and the saga is {step.saga_state}; nudged {_times(step.nudges)}{aborted}"


async def _dead_letters(client: ServiceClient) -> list[StuckRow]:
    return [
        StuckRow(
            service=client.service,
            what=Stuck.DEAD_LETTER,
            since=group.first_at,
            count=group.count,
            step=group.step,
            saga_type=group.saga_type,
            saga_id=group.saga_id,
            why=_why_dead_lettered(group),
        )
        for group in await client.groups()
    ]


def _why_dead_lettered(group: DeadLetterGroup) -> str:
    # Most errors begin with the reason.
    is_named = group.error.startswith(group.reason)
    return group.error if is_named else ": ".join(filter(None, (group.reason, group.error)))


async def _unsent(client: ServiceClient, now: datetime, *, is_grouped: bool) -> list[StuckRow]:
    """Return the outbox's rows that are due for too long; a retry that waits for its time is not stuck."""
    rows = [row for row in await client.outbox(limit=_MOST_ROWS) if _since(row) < now - _OUTBOX_AGE]
    late = sorted(rows, key=_since)
    if is_grouped and late:
        return [_oldest_of(client.service, late)]
    return [_unsent_event(client.service, row) for row in late]


def _since(row: UnsentMessage) -> datetime:
    return row.due_at if row.destination else row.occurred_at


def _oldest_of(service: str, late: list[UnsentMessage]) -> StuckRow:
    oldest, tries = late[0], max(row.tries for row in late)
    return StuckRow(
        service=service,
        what=Stuck.OUTBOX,
        since=_since(oldest),
        count=len(late),
        saga_type=oldest.saga_type,
        saga_id=oldest.saga_id,
        why=f"sent {_times(tries)} without a confirm; the oldest is {oldest.event_type}",
    )


def _unsent_event(service: str, row: UnsentMessage) -> StuckRow:
    way = f" to {row.destination}" if row.destination else ""
    tries = f"sent {_times(row.tries)} without a confirm" if row.tries else "never sent"
    return StuckRow(
        service=service,
        what=Stuck.OUTBOX,
        since=_since(row),
        saga_type=row.saga_type,
        saga_id=row.saga_id,
        why=f"{row.event_type}{way}, {tries}",
        details=_fields_of(row, "event_id", "event_type", "destination", "attempt", "tries"),
    )


def _fields_of(row: Row, *names: str) -> dict[str, object]:
    return {name: getattr(row, name) for name in names}


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
