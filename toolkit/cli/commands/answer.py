"""`saga answer`: give the answer that a step waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import held, run_async
from toolkit.cli.operator import operator, type_of
from toolkit.cli.options import Format, FormatOption, ReasonOption, ServicesOption, TypeOption
from toolkit.cli.output import print_some
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.persistence.audit_log import Operator
    from toolkit.protocol.question_rows import AnswerOutcome

_COLUMNS = ("service", "step", "event_type", "outcome", "decided_with", "decided_by", "decided_at", "why")


def answer(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The answer: one that `saga questions` names.")],
    saga_id: Annotated[str, typer.Option("--saga", metavar="ID", help="The saga's id.")],
    reason: ReasonOption,
    data: Annotated[str | None, typer.Option(metavar="JSON|@FILE|-", help="Its fields, without the saga's id.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one: limit=5000.")
    ] = None,
    saga_type: TypeOption = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Give the answer that a step waits for.

    The first answer counts. Ends with 1 where the step was answered before or waits no more, or where no service knows
    the saga; and with 3 where the step has not taken the answer within five seconds.
    """
    from toolkit.cli.payload import fields_of

    fields, texts = fields_of(data, changes or [])
    outcomes = run_async(_answer(event, saga_id, saga_type, (fields, texts), operator(reason), service))
    with held():
        print_some(outcomes, output, columns=_COLUMNS)
    if not outcomes:
        complain(f"error: no service that takes {event} knows a saga {saga_id!r}; `saga questions` lists what is open")
    leave(_exit_code(outcomes))


def _exit_code(outcomes: Sequence[AnswerOutcome]) -> ExitCode:
    if not outcomes or any(each.is_refused for each in outcomes):
        return ExitCode.PROBLEM
    return ExitCode.FINE if all(each.is_answered for each in outcomes) else ExitCode.AWAY


async def _answer(
    event: str,
    saga_id: str,
    named: str | None,
    given: tuple[dict[str, Any], Mapping[str, str]],
    by: Operator,
    service: list[str] | None,
) -> list[AnswerOutcome]:
    from toolkit.cli.payload import as_declared
    from toolkit.client.answering import services_taking

    async with opened(service) as known:
        taking = await services_taking(event, known)
        saga_type = await type_of(saga_id, named, [client for client, _ in taking])
        outcomes: list[AnswerOutcome] = []
        for client, _ in taking:
            contract = await client.contract()
            fields = as_declared(*given, contract.events[event].json_schema)
            if outcome := await client.answer(saga_id, event, fields, by, saga_type):
                outcomes.append(outcome)
        return outcomes
