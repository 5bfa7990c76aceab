"""`saga trace`: one saga's timeline and progress, as all services together show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, ServicesOption, TypeOption
from toolkit.cli.output import print_json
from toolkit.cli.service_locations import opened

if TYPE_CHECKING:
    from toolkit.client.saga_report import SagaReport
    from toolkit.protocol.timeline import Timeline


def trace(
    saga_id: Annotated[str, typer.Argument(metavar="ID", help="The saga's id.")],
    saga_type: TypeOption = None,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one saga's timeline, and what is still to come.

    A summary, then the entries in the order of cause and effect, then the steps to come unless one refuses. Ends with 1
    where no service knows the saga, and with 3 where a service can't be asked.
    """
    from toolkit.cli.progress import complain_of_contracts, complain_of_undeclared, print_remaining
    from toolkit.cli.timelines import complain_of_gaps, print_summary, print_timeline

    found = run_async(_read(saga_id, saga_type, service))
    timeline = found.timeline
    if output is not Format.TABLE:
        print_json(timeline.as_dict() | found.progress.as_dict(), output)
    elif timeline.entries:
        print_timeline(timeline, found.progress.summary)
        print_remaining(found.progress)
    elif found.has_dead_letters:
        print_summary(found.progress.summary)
    complain_of_gaps(timeline.unreachable)
    if timeline.entries:
        complain_of_contracts(found.without_contract)
        complain_of_undeclared(found.undeclared)
    leave(_exit_code(timeline, has_dead_letters=found.has_dead_letters))


async def _read(saga_id: str, saga_type: str | None, service: list[str] | None) -> SagaReport:
    from toolkit.cli.progress import follow

    async with opened(service) as known:
        return await follow(saga_id, saga_type, known)


def _exit_code(timeline: Timeline, *, has_dead_letters: bool) -> ExitCode:
    if timeline.unreachable:
        if not timeline.entries:
            complain(f"no service that can be reached knows the saga {timeline.saga_id!r} yet")
        return ExitCode.AWAY
    if timeline.entries:
        return ExitCode.FINE
    if not has_dead_letters:  # its summary names them
        # Of what could not be read only a saga's first event is sure to bear the saga's id.
        complain(
            f"error: no service knows a saga {timeline.saga_id!r}; `saga ls` lists those that they know, "
            "and `saga attention` what could not be read"
        )
    return ExitCode.PROBLEM
