"""Timelines, printed for people.

A service that does not answer leaves a gap that is named; it never makes a saga look undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC

from rich.text import Text

from toolkit.cli.exit_codes import complain
from toolkit.cli.output import console, print_table, shortened, text_of
from toolkit.declaration.events import SagaState
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.log_entry import LogEntry, answered_by
from toolkit.protocol.timeline import Timeline

#: Sign and colour of each state; sign and word are enough to know it.
_SIGNS: dict[str, tuple[str, str]] = {
    StepState.GATHERING: ("…", "dim"),
    StepState.EXECUTING: ("…", "dim"),
    StepState.COMPLETED: ("→", "green"),
    StepState.FAILED: ("✗", "red"),
    StepState.FENCED: ("⊘", "yellow"),
    StepState.VOIDING: ("↩", "yellow"),
    StepState.COMPENSATING: ("↩", "yellow"),
    StepState.COMPENSATED: ("↩", "yellow"),
    StepState.CONFIRMED: ("✓", "dim"),
    Note.DEAD_LETTERED: ("!", "bold red"),
}
_OTHER_NOTE = ("·", "dim")

_COLOURS = {SagaState.COMPLETED: "green", SagaState.FAILED: "red", SagaState.COMPENSATING: "yellow"}


def complain_of_gaps(unreachable: Mapping[str, str]) -> None:
    """Name each unreachable service."""
    for service, reason in unreachable.items():
        complain(f"warning: {service} is unreachable, so its entries are missing here: {reason}")


def print_timeline(timeline: Timeline, summary: str | None = None) -> None:
    """Print a timeline as a table, after a line with the saga's state, and its summary."""
    begun = text_of(min(entry.at for entry in timeline.entries))
    saga = text_of(f"saga {timeline.saga_id} ({timeline.saga_type}): ")
    console().print(Text.assemble(saga, styled_state(timeline.state), ", begun ", begun))
    if summary:
        print_summary(summary)
    columns = ("", "at (UTC)", "service", "step", "state", "detail")
    print_table(columns, [_line(entry) for entry in timeline.entries])


def print_summary(summary: str) -> None:
    """Print a saga's summary."""
    console().print(text_of(summary), style="bold")


def print_by_saga(entries: Sequence[LogEntry]) -> None:
    """Print entries of one service's log below the sagas that they belong to, in the order of their first ones."""
    sagas: dict[SagaKey, list[LogEntry]] = {}
    for entry in entries:
        sagas.setdefault((entry.saga_type, entry.saga_id), []).append(entry)
    for (saga_type, saga_id), moves in sagas.items():
        day = moves[0].at.astimezone(UTC).date().isoformat()
        console().print(Text.assemble(text_of(f"saga {saga_id} ({saga_type}), {day}")))
        print_table(("", "at (UTC)", "step", "state", "detail"), [move(entry) for entry in moves])


def styled_state(state: SagaState | None) -> Text:
    """Return a saga's state in its colour."""
    return Text(state or "unknown", style=_COLOURS.get(state, "") if state else "")


def _line(entry: LogEntry) -> list[Text]:
    sign, at, step, state, detail = move(entry)
    return [sign, at, text_of(entry.service), step, state, detail]


def move(entry: LogEntry) -> list[Text]:
    """Return the cells of one entry: its sign, time, step, state and details."""
    sign, style = _SIGNS.get(entry.to_state, _OTHER_NOTE)
    state = entry.to_state + (f" (attempt {entry.attempt})" if entry.attempt > 1 else "")
    at = entry.at.astimezone(UTC).time().isoformat(timespec="milliseconds")
    who = answered_by(entry)
    arrived = f"{entry.event_type} by {who}" if who else f"{entry.event_type} arrived"
    if not who and entry.to_state != StepState.GATHERING:
        arrived = ""
    detail = ": ".join(str(fact) for fact in (arrived, entry.emitted_type, entry.error) if fact)
    shown = (text_of(at), text_of(entry.step))
    return [Text(sign, style=style), *shown, Text(state, style=style), shortened(detail or None)]
