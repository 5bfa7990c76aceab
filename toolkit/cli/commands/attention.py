"""`saga attention`: what is stuck in all services, and why, in one list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
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
#: What goes out goes within a second; what has not for so long does not by itself, or not soon.
_PATIENCE = timedelta(minutes=1)
#: So many rows of an outbox are looked at: as many as a service tells at once.
_MOST_ROWS = 1_000


def attention(
    limit: Annotated[
        int, typer.Option(min=1, max=1_000, help="So many overdue steps, and contradictions, of each service.")
    ] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List what is stuck in all services, and why.

    Overdue steps, dead letters, what can't be sent, contradictions, sagas at undeclared steps, and services that are
    not ready. Ends with 1 where anything is, and with 3 where a service can't be asked.
    """
    answers = run_async(_read(limit, service))
    rows = [_away(name, reason) for name, reason in answers.unreachable.items()]
    rows += [row for found in answers.by_service.values() for row in found]
    print_rows(sorted(rows, key=_begin), output, columns=with_types(_COLUMNS, rows))
    for name, reason in answers.unreachable.items():
        complain(f"warning: {name} is unreachable, so what is stuck there is missing here: {reason}")
    if answers.unreachable:
        leave(ExitCode.AWAY)
    leave(ExitCode.PROBLEM if rows else ExitCode.FINE)


async def _read(limit: int, service: list[str] | None) -> Answers[Rows]:
    from toolkit.client.fan_out import ask_all

    now = SystemClock().now()
    async with opened(service) as known:
        return await ask_all(known, lambda each: stuck_in(each, limit, now))


async def stuck_in(client: ServiceClient, limit: int, now: datetime) -> Rows:
    """Return what is stuck in one service."""
    import asyncio

    late, odd, gone, groups, waiting, ready = await asyncio.gather(
        client.overdue(limit=limit),
        client.contradictions(limit=limit),
        client.undeclared_steps(),
        client.groups(),
        client.outbox(limit=_MOST_ROWS),
        client.ready(),
    )
    under_way = (each for each in gone if each["unfinished"])
    stuck = [*_unready(ready), *map(_undeclared, under_way), *map(_late, late), *map(_odd, odd), *map(_dead, groups)]
    found = [*stuck, *_unsent(waiting, now)]
    return [{"service": client.service} | row for row in found]


def _begin(row: Mapping[str, Any]) -> datetime:
    """Return what sorts the rows; those of services come first, of which nobody knows since when."""
    return row["since"] or datetime.min.replace(tzinfo=UTC)


def _away(service: str, reason: str) -> dict[str, Any]:
    return {"service": service} | _row("unreachable", None, 1, step=None, saga_type=None, saga_id=None, why=reason)


def _unready(ready: dict[str, bool]) -> Iterator[dict[str, Any]]:
    from toolkit.tracking.snapshot import lacks

    if lacking := lacks(ready):
        yield _row("not ready", None, 1, step=None, saga_type=None, saga_id=None, why=f"no {', '.join(lacking)}")


def _undeclared(step: dict[str, Any]) -> dict[str, Any]:
    facts = {"step": step["step"], "saga_type": step["saga_type"], "saga_id": None}
    why = "sagas are under way at a step that the service does not declare; nothing could undo it"
    return _row("undeclared step", None, step["unfinished"], **facts, why=why)


def _odd(step: dict[str, Any]) -> dict[str, Any]:
    return _row("contradiction", step["since"], 1, step=step["step"], **_saga(step), why=step["error"])


def _late(step: dict[str, Any]) -> dict[str, Any]:
    why = f"{step['state']}, and the saga is {step['saga_state']}; nudged {_times(step['nudges'])}"
    aborted = ", an abort was sent" if step["aborted"] else ""
    return _row("overdue", step["since"], 1, step=step["step"], **_saga(step), why=why + aborted)


def _dead(group: dict[str, Any]) -> dict[str, Any]:
    error = group.get("error") or ""  # an older service does not tell
    # The error mostly begins with the reason.
    why = error if error.startswith(group["reason"]) else ": ".join(part for part in (group["reason"], error) if part)
    what = "dead letter" if group["count"] == 1 else "dead letters"
    return _row(what, group["first_at"], group["count"], step=group["step"], **_saga(group), why=why)


def _unsent(rows: Rows, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield what has been due for too long, if anything has: a retry waits for its time, which is no fault."""
    old = [(since, row) for row in rows if (since := _since(row)) < now - _PATIENCE]
    if old:
        since, oldest = min(old, key=lambda each: each[0])
        tries = max(row["tries"] for _, row in old)
        why = f"sent {_times(tries)} without a confirm; the oldest is {oldest['event_type']}"
        yield _row("outbox", since, len(old), step=None, **_saga(oldest), why=why)


def _since(row: dict[str, Any]) -> datetime:
    since: datetime = row["due_at"] if row["destination"] else row.get("occurred_at") or row["due_at"]
    return since


def _saga(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"saga_type": row.get("saga_type"), "saga_id": row.get("saga_id")}


def _row(what: str, since: datetime | None, count: int, **facts: Any) -> dict[str, Any]:
    return {"what": what, "since": since, "count": count} | facts


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
