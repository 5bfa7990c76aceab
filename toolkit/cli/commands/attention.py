"""`saga attention`: what is stuck in all services, and why, in one list."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
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

if TYPE_CHECKING:
    from toolkit.client.fan_out import Answers
    from toolkit.client.service_client import Rows, ServiceClient

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


async def _read(kinds: list[Stuck], limit: int, service: list[str] | None) -> Answers[Rows]:
    from toolkit.client.fan_out import ask_all

    now = SystemClock().now()
    async with opened(service) as known:
        return await ask_all(known, lambda each: _stuck_in(each, kinds, limit, now))


async def _stuck_in(client: ServiceClient, kinds: list[Stuck], limit: int, now: datetime) -> Rows:
    import asyncio

    readers: dict[Stuck, Callable[[], Coroutine[Any, Any, Iterable[dict[str, Any]]]]] = {
        Stuck.NOT_READY: lambda: _unready(client),
        Stuck.UNDECLARED_STEP: lambda: _undeclared(client),
        Stuck.CONTRADICTION: lambda: _contradictions(client, limit),
        Stuck.OVERDUE: lambda: _overdue(client, limit),
        Stuck.DEAD_LETTER: lambda: _dead_letters(client),
        Stuck.OUTBOX: lambda: _unsent(client, now, is_grouped=kinds != [Stuck.OUTBOX]),
    }
    found = await asyncio.gather(*(read() for kind, read in readers.items() if kind in kinds))
    return [{"service": client.service} | row for rows in found for row in rows]


def _sort_key(row: Mapping[str, Any]) -> datetime:
    """Return a row's time; rows of services come first, since they have none."""
    return row["since"] or datetime.min.replace(tzinfo=UTC)


def _unreachable(service: str, reason: str) -> dict[str, Any]:
    return {"service": service} | _row("unreachable", None, {}, reason)


async def _unready(client: ServiceClient) -> list[dict[str, Any]]:
    from toolkit.tracking.snapshot import lacks

    lacking = lacks(await client.ready())
    return [_row(Stuck.NOT_READY, None, {}, f"no {', '.join(lacking)}")] if lacking else []


async def _undeclared(client: ServiceClient) -> list[dict[str, Any]]:
    why = "sagas are under way at a step that the service does not declare, so nothing can undo it"
    return [
        _row(Stuck.UNDECLARED_STEP, None, step, why, count=step["unfinished"])
        for step in await client.undeclared_steps()
        if step["unfinished"]
    ]


async def _contradictions(client: ServiceClient, limit: int) -> list[dict[str, Any]]:
    return [
        _row(Stuck.CONTRADICTION, step["since"], step, step["error"])
        for step in await client.contradictions(limit=limit)
    ]


async def _overdue(client: ServiceClient, limit: int) -> list[dict[str, Any]]:
    facts = ("state", "saga_state", "nudges", "aborted")
    return [
        _row(Stuck.OVERDUE, step["since"], step, _why_overdue(step), details={name: step[name] for name in facts})
        for step in await client.overdue(limit=limit)
    ]


def _why_overdue(step: Mapping[str, Any]) -> str:
    aborted = ", an abort was sent" if step["aborted"] else ""
    return f"{step['state']}, and the saga is {step['saga_state']}; nudged {_times(step['nudges'])}{aborted}"


async def _dead_letters(client: ServiceClient) -> list[dict[str, Any]]:
    return [
        _row(Stuck.DEAD_LETTER, group["first_at"], group, _why_dead_lettered(group), count=group["count"])
        for group in await client.groups()
    ]


def _why_dead_lettered(group: Mapping[str, Any]) -> str:
    error = group.get("error") or ""  # an older service returns none
    # Most errors begin with the reason.
    return error if error.startswith(group["reason"]) else ": ".join(filter(None, (group["reason"], error)))


async def _unsent(client: ServiceClient, now: datetime, *, is_grouped: bool) -> Iterator[dict[str, Any]]:
    """Return the outbox's rows that are due for too long; a retry that waits for its time is not stuck."""
    rows = [(_since(row), row) for row in await client.outbox(limit=_MOST_ROWS)]
    late = sorted((each for each in rows if each[0] < now - _OUTBOX_AGE), key=lambda each: each[0])
    return _oldest_of(late) if is_grouped else (_unsent_event(since, row) for since, row in late)


def _since(row: dict[str, Any]) -> datetime:
    since: datetime = row["due_at"] if row["destination"] else row.get("occurred_at") or row["due_at"]
    return since


def _oldest_of(late: list[tuple[datetime, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    if late:
        since, oldest = late[0]
        tries = max(row["tries"] for _, row in late)
        why = f"sent {_times(tries)} without a confirm; the oldest is {oldest['event_type']}"
        yield _row(Stuck.OUTBOX, since, oldest | {"step": None}, why, count=len(late))


def _unsent_event(since: datetime, row: dict[str, Any]) -> dict[str, Any]:
    facts = ("event_id", "event_type", "destination", "attempt", "tries")
    way = f" to {row['destination']}" if row["destination"] else ""
    tries = f"sent {_times(row['tries'])} without a confirm" if row["tries"] else "never sent"
    why = f"{row['event_type']}{way}, {tries}"
    return _row(Stuck.OUTBOX, since, row | {"step": None}, why, details={name: row[name] for name in facts})


def _row(
    what: str,
    since: datetime | None,
    subject: Mapping[str, Any],
    why: str,
    *,
    count: int = 1,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    saga = {name: subject.get(name) for name in ("step", "saga_type", "saga_id")}
    return {"what": what, "since": since, "count": count, **saga, "why": why, "details": details or {}}


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
