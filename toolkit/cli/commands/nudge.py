"""`saga nudge`: have each service emit its last event of a stalled saga again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import held, run_async
from toolkit.cli.operator import operator, type_of
from toolkit.cli.options import Format, FormatOption, ReasonOption, ServicesOption, TypeOption
from toolkit.cli.output import print_some
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.client.fan_out import Responses
    from toolkit.client.service_client import ServiceClient
    from toolkit.operations.outcomes import SagaOutcome
    from toolkit.persistence.audit_log import Operator

_COLUMNS = ("service", "step", "event_type", "event_id", "outcome", "why")


def nudge(
    saga_id: Annotated[str, typer.Argument(metavar="ID", help="The saga's id.")],
    reason: ReasonOption,
    saga_type: TypeOption = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Emit an unfinished saga's last events again.

    As the watchdog does by itself; events that were consumed change nothing. Ends with 1 where the saga has ended or no
    service knows it, and with 3 where a service can't be asked.
    """
    answers = run_async(_nudge(saga_id, saga_type, operator(reason), service))
    rows = [row for found in answers.by_service.values() for row in found]
    with held():
        print_some(rows, output, columns=_COLUMNS)
    for name, why in answers.unreachable.items():
        complain(f"warning: {name} is unreachable, so nothing was nudged there: {why}")
    if answers.unreachable:
        leave(ExitCode.AWAY)
    if not rows:
        complain(f"error: no service knows a saga {saga_id!r}; `saga ls` lists those that they know")
    leave(ExitCode.FINE if any(not row.is_refused for row in rows) else ExitCode.PROBLEM)


async def _nudge(
    saga_id: str, named: str | None, by: Operator, service: list[str] | None
) -> Responses[Sequence[SagaOutcome]]:
    from toolkit.client.fan_out import query_all

    async with opened(service) as known:
        saga_type = await type_of(saga_id, named, known)

        async def outcomes_of(each: ServiceClient) -> Sequence[SagaOutcome]:
            return (await each.nudge(saga_id, by, saga_type)).rows

        return await query_all(known, outcomes_of, within=None)
