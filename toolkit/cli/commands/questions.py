"""`saga questions`: the steps that wait for an answer."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_rows, with_types
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.client.fan_out import Responses
    from toolkit.protocol.question_rows import Question

_COLUMNS = ("asked_at", "service", "step", "saga_id", "asked_by", "waits_for", "deadline")


def questions(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many of each service.")] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List the steps that wait for an answer.

    The answer of a person, or of a system outside; `saga answer` gives one. The longest waiting come first. Ends with 3
    where a service can't be asked.
    """
    answers = run_async(_read(limit, service))
    rows = sorted((row for found in answers.by_service.values() for row in found), key=attrgetter("asked_at"))
    print_rows(rows, output, columns=with_types(_COLUMNS, rows))
    for name, reason in answers.unreachable.items():
        complain(f"warning: {name} is unreachable, so its questions are missing here: {reason}")
    if cut := [name for name, found in answers.by_service.items() if len(found) == limit]:
        complain(f"warning: of {', '.join(cut)} only the longest waiting {limit} are listed; there may be more")
    leave(ExitCode.AWAY if answers.unreachable else ExitCode.FINE)


async def _read(limit: int, service: list[str] | None) -> Responses[list[Question]]:
    from toolkit.client.fan_out import query_all

    async with opened(service) as known:
        return await query_all(known, lambda each: each.questions(limit=limit))
