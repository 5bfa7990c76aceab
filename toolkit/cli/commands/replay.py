"""`saga replay`: have each service emit its last events of a saga again, from its own log."""

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


def replay(
    saga_id: Annotated[str, typer.Argument(metavar="ID", help="The saga's id.")],
    reason: ReasonOption,
    saga_type: TypeOption = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Emit a saga's last events again, even an ended one's.

    Under their own ids: consumed events change nothing, lost ones let the saga go on. Ends with 1 where no service
    knows the saga, and with 3 where a service can't be asked.
    """
    answers = run_async(_replay(saga_id, saga_type, operator(reason), service))
    rows = [row for found in answers.by_service.values() for row in found]
    with held():
        print_some(rows, output, columns=_COLUMNS)
    for name, why in answers.unreachable.items():
        complain(f"warning: {name} is unreachable, so nothing was replayed there: {why}")
    if not rows and not answers.unreachable:
        complain(f"error: no service knows a saga {saga_id!r}; `saga ls` lists those that they know")
        leave(ExitCode.PROBLEM)
    leave(ExitCode.AWAY if answers.unreachable else ExitCode.FINE)


async def _replay(
    saga_id: str, named: str | None, by: Operator, service: list[str] | None
) -> Responses[Sequence[SagaOutcome]]:
    from toolkit.client.fan_out import query_all

    async with opened(service) as known:
        saga_type = await type_of(saga_id, named, known)

        async def outcomes_of(each: ServiceClient) -> Sequence[SagaOutcome]:
            return (await each.replay(saga_id, by, saga_type)).rows

        return await query_all(known, outcomes_of, within=None)
