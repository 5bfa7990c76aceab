"""`saga stats`: the figures of all services, as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import console, print_rows
from toolkit.cli.service_locations import opened
from toolkit.protocol.fence import SagaState

if TYPE_CHECKING:
    from toolkit.client.fan_out import Responses
    from toolkit.client.service_client import ServiceClient
    from toolkit.tracking.snapshot import Snapshot

#: What a table has room for; programs get every field of the snapshot.
COLUMNS = (
    "service", *(state.lower() for state in SagaState), "rate", "p95", "overdue", "dead_letters", "outbox", "oldest",
)  # fmt: skip

#: What a narrow terminal has room for: what waits, or needs a person.
_FEWER = ("service", "pending", "compensating", "overdue", "dead_letters", "outbox", "oldest")
_NARROW = 110


def stats(service: ServicesOption = None, output: FormatOption = Format.TABLE) -> None:
    """Show each service's sagas by state, and what waits.

    With how fast they end, and what needs a person. Ends with 3 where a service can't be asked.
    """
    answers = run_async(_read(service))
    snapshots = list(answers.by_service.values())
    if output is Format.TABLE:
        print_rows([figures(snapshot) for snapshot in snapshots], output, columns=columns())
    else:
        print_rows([snapshot.model_dump() for snapshot in snapshots], output, columns=COLUMNS)
    complain_of_silence(answers.unreachable)
    leave(ExitCode.AWAY if answers.unreachable else ExitCode.FINE)


def columns() -> Sequence[str]:
    """Return the figures that this terminal has room for."""
    return _FEWER if console().width < _NARROW else COLUMNS


async def snapshots_of(services: Sequence[ServiceClient]) -> Responses[Snapshot]:
    """Ask all services for their figures."""
    from toolkit.client.fan_out import query_all

    return await query_all(services, lambda each: each.snapshot())


def figures(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot's row of a table; while the service still counts its sagas, their columns are empty."""
    states = {state.lower(): snapshot.by_state.get(state, 0) if snapshot.is_counted else None for state in SagaState}
    return {
        "service": snapshot.service,
        **states,
        "rate": f"{snapshot.rate:.1f}/s" if snapshot.is_counted else None,
        "p95": _seconds(snapshot.p95),
        "overdue": snapshot.overdue,
        "dead_letters": snapshot.dead_letters,
        "outbox": snapshot.outbox,
        "oldest": _seconds(snapshot.outbox_oldest),
    }


def complain_of_silence(unreachable: Mapping[str, str]) -> None:
    """Name each service whose figures are missing."""
    for name, reason in unreachable.items():
        complain(f"warning: {name} is unreachable, so its figures are missing here: {reason}")


def _seconds(span: float | None) -> str | None:
    return None if span is None else f"{span:.1f} s"


async def _read(service: list[str] | None) -> Responses[Snapshot]:
    async with opened(service) as known:
        return await snapshots_of(known)
