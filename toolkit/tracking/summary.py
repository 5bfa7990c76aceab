"""A saga in a sentence or two, to be read within a minute: what happened, and what it waits for.

Times are UTC. A time has its date where that differs from the time before; the first one's from today.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote

from toolkit.declaration.events import AbortRequested, SagaState
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import Timeline
from toolkit.tracking.step_status import NodeProgress, Status

#: The borders of the words in an event's name.
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DAY = re.compile(r"\0([^\0]*)\0")
#: How many characters of a reason are shown.
_LONGEST_REASON = 200
#: How many waiting nodes are described one by one, and how many completed steps are named.
_MOST = 3


@dataclass(frozen=True, slots=True)
class SummaryFacts:
    """The facts of a summary; `dead_letters`: the service and the id of each that stops no known step."""

    timeline: Timeline
    nodes: Sequence[NodeProgress]
    dead_letters: Sequence[tuple[str, str]]
    now: datetime

    @property
    def is_ended(self) -> bool:
        """Whether the saga is known to have ended."""
        return self.timeline.state is not None and self.timeline.state.is_ended


def summary(facts: SummaryFacts) -> str:
    """Return the saga in a sentence or two."""
    if not facts.timeline.entries:
        return " ".join(_unknown(facts))
    now = _end(facts) if facts.is_ended else _at_present(facts)
    return _with_days(" ".join([*_so_far(facts), *now, *_left_over(facts), *_gaps(facts)]), facts.now)


def _unknown(facts: SummaryFacts) -> Iterator[str]:
    knowing = "No reachable service" if facts.timeline.unreachable else "No service"
    yield f"{knowing} knows a saga {facts.timeline.saga_id}."
    yield from _left_over(facts)
    yield from _gaps(facts)


# -- what happened -------------------------------------------------------------------------------------------------


def _so_far(facts: SummaryFacts) -> Iterator[str]:
    """Yield why the saga is compensated and what is undone; else, while it runs, its last completed steps."""
    entries = facts.timeline.effects
    causes = [each for each in (_abort(facts), _first_refusal(facts)) if each]
    undone = [entry for entry in entries if entry.to_state == StepState.COMPENSATED]
    if causes or undone:
        yield from causes
        yield from (f"{_news(each)}." for each in undone)
    elif not facts.is_ended:
        yield from (f"{_news(each)} at {_clock(each.at)}." for each in _last_done(facts.timeline))


def _last_done(timeline: Timeline) -> list[LogEntry]:
    """Return the completed steps that no completed step followed: the last of each parallel branch.

    A coordinator's steps follow its commands, not each other's events: of these it is the last one alone.
    """
    entries = timeline.effects
    done = [entry for entry in entries if entry.to_state == StepState.COMPLETED]
    if len(entries) < len(timeline.entries):
        return done[-1:]
    steps = {(each.service, each.step) for each in done}
    followed = {each.event_id for each in entries if (each.service, each.step) in steps}
    return [each for each in done if each.emitted_id is None or each.emitted_id not in followed][-_MOST:]


def _abort(facts: SummaryFacts) -> str | None:
    """Return that an abort turned the saga round, and before which step in the saga's order.

    A refusal before the abort turned it round instead; only the services' clocks show which came first.
    """
    entries = facts.timeline.effects
    fenced = [entry for entry in entries if _is_aborted(entry)]
    requested = [entry.at for entry in (*fenced, *(each for each in entries if each.to_state == Note.ABORTED))]
    if not fenced or any(entry.at < min(requested) for entry in entries if _is_refusal(entry)):
        return None
    order = {(node.service, node.name): number for number, node in enumerate(facts.nodes)}
    first = min(fenced, key=lambda entry: order.get((entry.service, entry.step), len(order)))
    at = min(entry.at for entry in fenced)
    return f"Aborted at {_clock(at)}, before {first.step}{_because(first.error)}."


def _first_refusal(facts: SummaryFacts) -> str | None:
    """Return the first refusal by a step of its own accord."""
    first = next(filter(_is_refusal, facts.timeline.effects), None)
    if first is None:
        return None
    steps = {node.name for node in facts.nodes if node.service == first.service and node.kind == "step"}
    what = f" {first.step}" if len(steps) > 1 else ""
    return f"{_capital(first.service)} refused{what} at {_clock(first.at)}{_because(first.error)}."


def _is_aborted(entry: LogEntry) -> bool:
    return bool(entry.to_state == StepState.FENCED and entry.event_type == AbortRequested.__name__)


def _is_refusal(entry: LogEntry) -> bool:
    return bool(entry.to_state == StepState.FAILED)


# -- how it ended, or what it waits for ----------------------------------------------------------------------------


def _end(facts: SummaryFacts) -> Iterator[str]:
    entries = facts.timeline.entries
    ends = [each for each in entries if each.saga_state is facts.timeline.state]
    if facts.timeline.state is SagaState.COMPLETED:
        took = _span((ends[0].at - min(each.at for each in entries)).total_seconds())
        yield f"Completed at {_clock(ends[0].at)}, {took} after it began."
    else:
        yield (
            "Ended."
            if any(_is_aborted(each) or _is_refusal(each) for each in entries)
            else f"Failed, and ended at {_clock(ends[0].at)}."
        )
    for each in entries:
        if each.to_state == Note.ENDED and each.error:
            yield f"{each.step} ({each.service}) is {each.error}: see `saga verify`."


def _at_present(facts: SummaryFacts) -> Iterator[str]:
    active = [node for node in facts.nodes if node.status.is_to_come and node.at]
    active.sort(key=lambda node: _URGENCY[node.status])
    for node in active[:_MOST]:
        yield _doing(node, facts)
    if len(active) > _MOST:
        yield f"{len(active) - _MOST} more wait."
    if rest := [node for node in facts.nodes if node.status is Status.REMAINING and not node.at]:
        yield f"Still to come: {_names(rest)}."
    if not active and not rest and not facts.timeline.unreachable:
        last = facts.timeline.entries[-1]
        yield f"Nothing has moved since {_clock(last.at)}, and no next step is known."


_URGENCY = {Status.DEAD_LETTER: 0, Status.OVERDUE: 1, Status.RUNNING: 2, Status.WAITING: 3, Status.REMAINING: 4}


def _doing(node: NodeProgress, facts: SummaryFacts) -> str:
    who, since = f"{node.name} ({node.service})", _clock(node.at)
    if node.status is Status.DEAD_LETTER:
        return f"{who} was dead-lettered at {since} and needs a person{_because(node.error)}. {_cure(node, facts)}"
    if node.waits_for:
        event = node.event_in.type if node.event_in else "its first event"
        text = f"{who} waits for {node.waits_for}, since {event} at {since}."
        return f"Overdue: {text}{_nudged(node)}" if node.status is Status.OVERDUE else text
    is_tried_again = node.next_at or (node.attempt or 1) > 1
    if node.status is Status.RUNNING or (node.status is Status.OVERDUE and node.attempt):
        text = _trying(node, facts) if is_tried_again else f"{who} is under way since {since}{_because(node.error)}."
    else:
        event = node.event_in.type if node.event_in else "its event"
        text = f"Waiting for {node.service} to begin {node.name}, since {event} at {since}{_because(node.error)}."
    return f"Overdue: {text.replace('Waiting', 'waiting', 1)}{_nudged(node)}" if node.status is Status.OVERDUE else text


def _trying(node: NodeProgress, facts: SummaryFacts) -> str:
    which = f"Attempt {node.attempt}" + (f" of {node.attempts}" if node.attempts else "")
    following = f"follows at {_clock(node.next_at)}" if node.next_at else "is on its way"
    return f"{node.name} ({node.service}) failed at {_clock(node.at)}{_because(node.error)}. {which} {following}."


def _nudged(node: NodeProgress) -> str:
    return f" Nudged {node.nudges} {'time' if node.nudges == 1 else 'times'}." if node.nudges else ""


def _cure(node: NodeProgress, facts: SummaryFacts) -> str:
    if node.dead_letter_id:
        return f"See `saga dead-letters show {node.service} {node.dead_letter_id}`."
    return f"Once that is mended, `saga replay {facts.timeline.saga_id} --reason TEXT` has it handled again."


# -- what is left over, and what is not known ----------------------------------------------------------------------


def _left_over(facts: SummaryFacts) -> Iterator[str]:
    by_service: dict[str, list[str]] = {}
    for service, dead_letter in facts.dead_letters:
        by_service.setdefault(service, []).append(dead_letter)
    for service, ids in by_service.items():
        if len(ids) == 1:
            yield f"A dead letter is left in {service}: see `saga dead-letters show {service} {ids[0]}`."
        else:
            listing = f"saga dead-letters ls {service} --saga {quote(facts.timeline.saga_id)}"
            yield f"{len(ids)} dead letters are left in {service}: see `{listing}`."


def _gaps(facts: SummaryFacts) -> Iterator[str]:
    for service in facts.timeline.unreachable:
        nodes = [node for node in facts.nodes if node.service == service and node.status is Status.UNKNOWN]
        what = f"whether {_listed([node.name for node in nodes])} was done" if nodes else "what it did"
        yield f"{_capital(service)} can't be reached: {what} is not known."


def _names(nodes: Sequence[NodeProgress]) -> str:
    return ", ".join(f"{node.name} ({node.service})" for node in nodes)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def _news(entry: LogEntry) -> str:
    """Return the words of the emitted event's name: "Inventory released"."""
    words = _WORDS.split(str(entry.emitted_type or entry.step))
    return " ".join(word.lower() for word in words).capitalize()


def _because(reason: str | None) -> str:
    text = " ".join((reason or "").replace("\0", "").split()).rstrip(".")
    return f": {text[:_LONGEST_REASON]}{'…' if len(text) > _LONGEST_REASON else ''}" if text else ""


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _clock(moment: datetime | None) -> str:
    """Return a time with its date between NULs, which no text holds; `_with_days` drops repeated dates."""
    if moment is None:
        return "an unknown time"
    at = moment.astimezone(UTC)
    return f"\0{at.date().isoformat()}\0{at.time().isoformat(timespec='seconds')}"


def _with_days(text: str, now: datetime) -> str:
    """Return a text whose times have their dates only where these differ from the time before; the first from today."""
    days = [now.astimezone(UTC).date().isoformat()]

    def dated(match: re.Match[str]) -> str:
        days.append(match[1])
        return "" if days[-2] == match[1] else f"{match[1]} "

    return _DAY.sub(dated, text)


def _span(seconds: float) -> str:
    """Return a span in its largest unit; clocks may differ, so it may come out a little less than nothing."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.1f} s"
