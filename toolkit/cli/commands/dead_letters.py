"""`saga dead-letters`: list a service's dead letters, redrive them, or drop them for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.exit_codes import ExitCode, UsageError, VerbGroup, complain, leave
from toolkit.cli.interrupts import run_async
from toolkit.cli.operator import operator, pick, span
from toolkit.cli.options import Format, FormatOption, ServicesOption
from toolkit.cli.output import print_fields, print_json, print_rows, printing, with_types
from toolkit.cli.progress_bars import progress
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock
from toolkit.errors import UnreachableError

if TYPE_CHECKING:
    from toolkit.client.service_client import ServiceClient
    from toolkit.operations.outcomes import DeadLetterOutcome
    from toolkit.persistence.audit_log import Operator
    from toolkit.persistence.dead_letters import Selection
    from toolkit.protocol.dead_letter_rows import DeadLetterSummary, WholeDeadLetter

dead_letters = typer.Typer(
    cls=VerbGroup,
    help="Look at dead letters, have them handled again, or drop them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: What a table has room for; programs get every field.
_COLUMNS = ("id", "reason", "step", "saga_id", "event_type", "attempts", "first_at", "last_at", "error")
_OUTCOMES = ("id", "saga_id", "step", "outcome", "why")

ServiceArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="Whose dead letters.")]
IdsOption = Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="This one; repeatable.")]
ReasonIsOption = Annotated[
    str | None, typer.Option("--reason-is", metavar="WORD", help="Those with this reason, for example 'retries spent'.")
]
StepOption = Annotated[
    str | None, typer.Option("--step", metavar="NAME", help="Those of this step, or of what undoes it.")
]
SagaOption = Annotated[str | None, typer.Option("--saga", metavar="ID", help="Those of this saga.")]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="NAME", help="With --saga: of a saga of this type only.")
]
AgeOption = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", help="Those that did not come again since: 1h, 30d.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
WhyOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit. Needed but for a dry run.")
]


@dead_letters.command("ls")
def list_dead_letters(
    of: ServiceArgument,
    ids: IdsOption = None,
    reason_is: ReasonIsOption = None,
    step: StepOption = None,
    saga: SagaOption = None,
    saga_type: TypeOption = None,
    older_than: AgeOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The newest so many.")] = 100,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List a service's dead letters, the newest first."""
    which = _selection(ids, reason_is, step, (saga_type, saga), older_than)
    rows = run_async(_read(of, which, limit, service))
    print_rows(rows, output, columns=with_types(_COLUMNS, rows))


@dead_letters.command("show")
def show_dead_letter(
    of: ServiceArgument,
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id.")],
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one dead letter whole: its message, the exception and the traceback."""
    dead_letter = run_async(_read_one(of, dead_letter_id, service))
    if dead_letter is None:
        complain(_missing(of, [dead_letter_id]))
        leave(ExitCode.PROBLEM)
    elif output is Format.TABLE:
        print_fields(dead_letter.as_row())
        _explain_redaction(of, dead_letter)
    else:
        print_json(dead_letter, output)
        _explain_redaction(of, dead_letter)


@dead_letters.command("redrive")
def redrive(
    of: ServiceArgument,
    ids: IdsOption = None,
    reason_is: ReasonIsOption = None,
    step: StepOption = None,
    saga: SagaOption = None,
    saga_type: TypeOption = None,
    older_than: AgeOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    reason: WhyOption = "",
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Have dead letters handled again by their service; their steps get all their attempts again.

    Ends with 1 where one was refused, because its saga has ended, and where there is none of an --id.
    """
    which = _selected(_selection(ids, reason_is, step, (saga_type, saga), older_than), everything)
    _act("redrive", of, which, _operator(reason, dry_run), dry_run, service, output)


@dead_letters.command("drop")
def drop(
    of: ServiceArgument,
    ids: IdsOption = None,
    reason_is: ReasonIsOption = None,
    step: StepOption = None,
    saga: SagaOption = None,
    saga_type: TypeOption = None,
    older_than: AgeOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    reason: WhyOption = "",
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Drop dead letters for good; the audit keeps that they were.

    Ends with 1 where there is none of an --id.
    """
    which = _selected(_selection(ids, reason_is, step, (saga_type, saga), older_than), everything)
    _act("drop", of, which, _operator(reason, dry_run), dry_run, service, output)


def _explain_redaction(of: str, dead_letter: WholeDeadLetter) -> None:
    """Name the reason why a message is not shown, and the table that has it."""
    from toolkit.declaration.redaction import NO_OBJECT, UNKNOWN

    if dead_letter.body in (UNKNOWN, NO_OBJECT):
        complain(
            f"the message of {dead_letter.id} is not shown, since its event's declaration is not known here; "
            f"it is whole in the table saga_dead_letters of {of}'s database"
        )


def _selection(
    ids: Sequence[str] | None,
    reason: str | None,
    step: str | None,
    saga: tuple[str | None, str | None],
    older_than: str | None,
) -> Selection:
    from toolkit.persistence.dead_letters import Selection

    saga_type, saga_id = saga
    if saga_type is not None and saga_id is None:
        raise UsageError("--type is allowed with --saga ID only: it narrows the sagas of one id")
    before = SystemClock().now() - span(older_than, "--older-than") if older_than is not None else None
    return Selection(
        ids=tuple(ids or ()), reason=reason, step=step, saga_id=saga_id, saga_type=saga_type, before=before
    )


def _selected(which: Selection, everything: bool) -> Selection:
    """Return the selection, unless it is empty without --all."""
    from toolkit.persistence.dead_letters import Selection

    if everything == (which != Selection()):
        raise UsageError(
            "select some: by --id, --reason-is, --step, --saga, --older-than, or --all without any of these"
        )
    return which


def _operator(reason: str, dry_run: bool) -> Operator:
    return operator(reason or "a dry run" if dry_run else reason)


def _act(
    verb: str,
    of: str,
    which: Selection,
    by: Operator,
    dry_run: bool,
    service: list[str] | None,
    output: Format,
) -> None:
    rows: list[DeadLetterOutcome] = []
    with printing(rows, output, columns=_OUTCOMES):
        run_async(_batch_by_batch(verb, of, which, by, dry_run, service, rows))
    refused = [row for row in rows if row.is_refused]
    done = {row.id for row in rows}
    missing = [each for each in dict.fromkeys(which.ids) if each not in done]
    if missing:
        complain(_missing(of, missing))
    elif not rows:
        complain(f"{of} has no such dead letters")
    if refused:
        complain(f"{len(refused)} of {len(rows)} refused; the first: {refused[0].why}")
    leave(ExitCode.PROBLEM if refused or missing else ExitCode.FINE)


def _missing(of: str, ids: Sequence[str]) -> str:
    named = ", ".join(map(repr, ids))
    return f"error: {of} has no such dead letter: {named}; `saga dead-letters ls {of}` lists those that it has"


async def _batch_by_batch(
    verb: str,
    of: str,
    which: Selection,
    by: Operator,
    dry_run: bool,
    service: list[str] | None,
    rows: list[DeadLetterOutcome],
) -> None:
    """Redrive or drop batch by batch, and add the outcomes to `rows`."""
    async with opened(service) as known:
        client = pick(of, known)
        newest = await client.dead_letters(which, limit=1)
        if not newest:
            await _check_step(client, which.step)
            return
        which = replace(which, up_to=newest[0].id)
        act = client.redrive if verb == "redrive" else client.drop
        with progress() as bar:
            task = bar.add_task("dead letters", total=await client.count(which))
            after: str | None = ""
            while after is not None:
                batch = await act(which, by, after=after, dry_run=dry_run)
                rows += batch.rows
                bar.advance(task, len(batch.rows))
                after = batch.after


async def _read(of: str, which: Selection, limit: int, service: list[str] | None) -> list[DeadLetterSummary]:
    async with opened(service) as known:
        client = pick(of, known)
        rows = await client.dead_letters(which, limit=limit)
        if not rows:
            await _check_step(client, which.step)
        return rows


async def _check_step(client: ServiceClient, name: str | None) -> None:
    """Check that a step without dead letters is declared.

    Raises:
        UsageError: it is not; the text names the declared steps.
    """
    if name is None:
        return
    try:
        handlers = (await client.contract()).handlers
    except UnreachableError:  # a database far from its service's code: the steps' names are not known here
        return
    steps = [each.name for each in handlers if each.kind == "step"]
    undone = next((each.of for each in handlers if each.kind == "compensation" and each.name == name), None)
    if undone is not None:
        raise UsageError(
            f"{name} is a compensation, and its dead letters have the name of its step: write --step {undone}"
        )
    if name not in steps:
        raise UsageError(f"{client.service} has no step {name!r}; there are: {', '.join(sorted(steps))}")


async def _read_one(of: str, dead_letter_id: str, service: list[str] | None) -> WholeDeadLetter | None:
    async with opened(service) as known:
        return await pick(of, known).dead_letter(dead_letter_id)
