"""An explicit-state check of an orchestrated saga: every interleaving of the coordinator and the steps that it asks.

The coordinator decides by the toolkit's own `Course`, on its own log. A message once sent may be delivered at any
moment, any number of times, in any order; that it is delivered more than once, that a step's time is up, or that an
abort comes, nothing may rely on. A step may refuse. The last step has no compensation, and its success ends the saga
itself; so does the step that announces the failure. One move is one transaction; a second replica of the coordinator
may decide on what it read before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.ways import Exploration, Ways
from toolkit.orchestration.course import Course
from toolkit.protocol.commands import Outcome, Verb
from toolkit.protocol.fence import Arrival, Decision, SagaState, decide
from toolkit.protocol.fence import StepState as At

#: Two steps in parallel, and three in a row; the last one can't be undone.
SHORT = (("pay", "insure"), ("confirm",))
STRICT = (("reserve",), ("pay",), ("confirm",))
LAST, NOTICE = "confirm", "notice"
DONE, FAILED, ABORT, START = "Done", "Failed", "Abort", "Start"

Groups = tuple[tuple[str, ...], ...]
Streams = tuple[tuple[str, At | None], ...]
#: The coordinator's message: a step with its outcome, a step that it gives up, or an abort or the start.
Received = tuple[str, Outcome | None]
#: What happens, the state that it leads to, and whether it need not happen.
Happening = tuple[str, "State", bool]


class Variant(StrEnum):
    """The rules, and what they would be with one of them taken away."""

    RULES = "the rules"
    NO_FENCE = "a step that is undone before it ran is not fenced"
    EARLIER_ONLY = "giving up on a step undoes the earlier steps only"
    BELIEVES_LATE = "a late success is believed"
    ALL_AT_ONCE = "everything is undone at once"
    DEAF_TO_LATE_REFUSAL = "a late refusal does not count as undone"
    DISBELIEVES_FINAL = "a late success of a step that nothing can undo is not believed"
    UNDOES_FINAL = "a step without a compensation counts as undone, even where it completed"
    SIDE_BY_SIDE = "two replicas take the replies of parallel steps side by side"
    STEPS_FENCE_ABORTS = "the asked steps fence themselves on an abort, too"


@dataclass(frozen=True, slots=True)
class State:
    """Everything at one moment: the steps' streams, the coordinator's, its end, and all messages ever sent.

    `taken` are the messages that were delivered once: they need not come again. `slow` is a transaction of another
    replica that has read and not committed yet: its message, and the coordinator's streams as it read them.
    """

    steps: Streams
    desk: Streams
    sent: frozenset[object]
    taken: frozenset[object] = frozenset()
    is_begun: bool = False
    end: SagaState | None = None
    slow: tuple[Received, Streams] | None = None

    def at(self, step: str) -> At | None:
        """Return where a step stands in its own service."""
        return dict(self.steps)[step]

    def move(self, step: str, to: At | None, *messages: object) -> State:
        """Append to a step's own stream, and send what follows."""
        return replace(self, steps=_with(self.steps, step, to), sent=self.sent | set(messages))


def _with(streams: Streams, step: str, to: At | None) -> Streams:
    return tuple((name, to if name == step else at) for name, at in streams)


class Model:
    """The moves of one plan under one variant of the rules; `replicas` is how many the coordinator has, one or two."""

    def __init__(self, groups: Groups, variant: Variant, *, replicas: int) -> None:
        self.groups, self.variant, self.has_slow = groups, variant, replicas > 1
        self.steps = [step for group in groups for step in group]
        names = (*self.steps, NOTICE)
        self.first = State(tuple((name, None) for name in names), tuple((name, None) for name in names), frozenset())

    def moves(self, state: State) -> Iterator[Happening]:
        """Yield all that can happen next, and whether it need not."""
        for step in (*self.steps, NOTICE):
            for message, found in (
                ((Verb.ASK, step), self._asked(state, step)),
                ((Verb.UNDO, step), self._undone(state, step)),
            ):
                if message in state.sent:
                    yield from self._delivered(state, message, found)
            if self.variant is Variant.STEPS_FENCE_ABORTS and ABORT in state.sent:
                yield from ((text, after, False) for text, after in self._fenced(state, step))
            if DONE in state.sent:
                yield from ((text, after, False) for text, after in self._confirmed(state, step))
        if ABORT not in state.sent:
            yield ABORT, replace(state, sent=state.sent | {ABORT}), True
        for received in self._deliverable(state):
            after = self._decided(state, received, state.desk)
            yield from self._delivered(state, received, [(f"desk: {_text(received)}", after)])
            if self.has_slow and state.slow is None and not state.end:
                yield f"a slow replica reads {_text(received)}", replace(state, slow=(received, state.desk)), True
        if state.slow:
            yield "the slow replica commits", self._committed(state, *state.slow), False

    def _delivered(self, state: State, message: object, found: Iterable[tuple[str, State]]) -> Iterator[Happening]:
        """Yield what a delivery leads to; a message that changes nothing is used up all the same."""
        is_optional = message in state.taken or message in self._times_up(state)
        for text, after in [*found] or [(f"{message} changes nothing", state)]:
            yield text, replace(after, taken=after.taken | {message}), is_optional

    def _times_up(self, state: State) -> list[Received]:
        """Return the steps that the coordinator may give up now, whatever the clocks show."""
        return [(step, None) for step, at in state.desk if at is At.EXECUTING]

    def _asked(self, state: State, step: str) -> Iterator[tuple[str, State]]:
        if state.at(step) is None:
            yield f"{step} completes", state.move(step, At.COMPLETED, *self._success(step))
            if step != NOTICE:
                yield f"{step} refuses", state.move(step, At.FAILED, (step, Outcome.REFUSED))

    def _fenced(self, state: State, step: str) -> Iterator[tuple[str, State]]:
        if state.at(step) is None and step != NOTICE:
            yield f"{step} is fenced by the abort", state.move(step, At.FENCED, (step, Outcome.REFUSED))

    def _success(self, step: str) -> tuple[object, ...]:
        outcome = Outcome.FINAL if step in (LAST, NOTICE) else Outcome.COMPLETED
        end = {LAST: (DONE,), NOTICE: (FAILED,)}.get(step, ())
        return ((step, outcome), *end)

    def _undone(self, state: State, step: str) -> Iterator[tuple[str, State]]:
        decision = decide(Arrival.COMPENSATION, state.at(step))
        outcome = Outcome.REFUSED if step == LAST else Outcome.UNDONE
        if decision is Decision.FENCE:
            to = None if self.variant is Variant.NO_FENCE else At.FENCED
            yield f"{step} is fenced", state.move(step, to, (step, outcome))
        elif decision is Decision.UNDO and step != LAST:
            yield f"{step} is undone", state.move(step, At.COMPENSATED, (step, outcome))
        elif decision is Decision.UNDO and self.variant is Variant.UNDOES_FINAL:
            yield f"{step} replies that it is undone", state.move(step, state.at(step), (step, Outcome.UNDONE))

    def _confirmed(self, state: State, step: str) -> Iterator[tuple[str, State]]:
        if state.at(step) is At.COMPLETED:
            yield f"{step} is confirmed", state.move(step, At.CONFIRMED)
        if dict(state.desk)[step] is At.COMPLETED:
            yield f"desk: {step} is confirmed", replace(state, desk=_with(state.desk, step, At.CONFIRMED))

    def _deliverable(self, state: State) -> Iterator[Received]:
        if not state.is_begun:
            yield START, None
        for message in state.sent:
            if message == ABORT:
                yield ABORT, None
            elif isinstance(message, tuple) and isinstance(message[1], Outcome):
                yield message
        yield from self._times_up(state)

    def _decided(self, state: State, received: Received, desk: Streams) -> State:
        """Return the state after the coordinator has decided, on the streams that it read."""
        name, outcome = received
        if state.end or (name == START and state.is_begun):
            return state
        course = _COURSES.get(self.variant, Course)(self.groups, dict(desk), failed_end=NOTICE)
        if name == START:
            course.start()
        elif name == ABORT:
            course.aborted()
        elif outcome is None:
            course.gave_up(name)
        else:
            course.replied(name, outcome)
        return self._applied(state, course, is_begun=state.is_begun or name in (START, ABORT))

    def _applied(self, state: State, course: Course, *, is_begun: bool) -> State:
        streams, sent = state.desk, set(state.sent)
        for move in course.moves:
            streams = _with(streams, move.step, move.to)
            if move.verb:
                sent.add((move.verb, move.step))
        return replace(state, desk=streams, sent=frozenset(sent), end=course.end, is_begun=is_begun)

    def _committed(self, state: State, received: Received, read: Streams) -> State:
        """Commit a decision that was made on an older read, if no position that it takes was taken meanwhile."""
        current = replace(state, slow=None)
        after = self._decided(replace(current, desk=read), received, read)
        moved = {name for name, at in after.desk if at is not dict(read)[name]}
        if not any(dict(read).values()) and state.is_begun:
            return current  # the first position of the coordinator's own stream is taken
        is_shared = self.variant is not Variant.SIDE_BY_SIDE and any(len(group) > 1 for group in self.groups)
        looks_at = dict(read) if is_shared else moved
        if not moved or any(dict(state.desk)[name] is not dict(read)[name] for name in looks_at):
            return current
        streams = tuple((name, dict(after.desk)[name] if name in moved else at) for name, at in state.desk)
        return replace(after, desk=streams, sent=after.sent | state.sent)


def _text(received: Received) -> str:
    name, outcome = received
    return f"{name} {outcome}" if outcome else name if name in (START, ABORT) else f"gives up on {name}"


class _EarlierOnly(Course):
    def gave_up(self, step: str) -> None:
        if self._states.get(step) is At.EXECUTING and step != NOTICE:
            self._move(step, At.VOIDING)
            self.replied(step, Outcome.UNDONE)


class _BelievesLate(Course):
    def replied(self, step: str, outcome: Outcome) -> None:
        is_late = self._states.get(step) is At.VOIDING and outcome is Outcome.COMPLETED
        super().replied(step, Outcome.FINAL if is_late else outcome)


class _AllAtOnce(Course):
    def _go_back(self) -> None:
        for group in self._groups:
            self._move_all(self._at(At.COMPLETED, group), At.COMPENSATING, Verb.UNDO)
        super()._go_back()


class _DeafToLateRefusal(Course):
    def replied(self, step: str, outcome: Outcome) -> None:
        if self._states.get(step) is not At.VOIDING or outcome is not Outcome.REFUSED:
            super().replied(step, outcome)


class _DisbelievesFinal(Course):
    def replied(self, step: str, outcome: Outcome) -> None:
        if self._states.get(step) is not At.VOIDING or outcome is not Outcome.FINAL:
            super().replied(step, outcome)


_COURSES: dict[Variant, type[Course]] = {
    Variant.EARLIER_ONLY: _EarlierOnly,
    Variant.BELIEVES_LATE: _BelievesLate,
    Variant.ALL_AT_ONCE: _AllAtOnce,
    Variant.DEAF_TO_LATE_REFUSAL: _DeafToLateRefusal,
    Variant.DISBELIEVES_FINAL: _DisbelievesFinal,
}


def explore(variant: Variant = Variant.RULES, groups: Groups = STRICT, *, replicas: int = 1) -> Exploration:
    """Visit every state that can be reached, the nearest first; under a broken rule, until the first fault."""
    model, found = Model(groups, variant, replicas=replicas), Exploration()
    ways = Ways(model.first)
    for state in ways:
        following = [each for each in model.moves(state) if each[1] != state]
        if all(is_optional for _, _, is_optional in following):
            found.at_rest += 1
            ways.note(found.faults, _fault_at_rest(state), state)
        for text, after, _ in following:
            changed = zip(state.desk, after.desk, strict=True)
            found.transitions |= {(was, now) for (_, was), (_, now) in changed if now and was is not now}
            ways.note(found.faults, _fault_of(groups, state, after), state, text)
            ways.add(after, before=state, by=text)
        if found.faults and variant is not Variant.RULES:
            break
    found.states = len(ways)
    return found


def _fault_of(groups: Groups, before: State, after: State) -> str | None:
    """Return the rule that a move breaks."""
    at = dict(after.steps)
    if {DONE, FAILED} <= after.sent:
        return "both ends"
    if DONE in after.sent and At.COMPENSATED in at.values():
        return "done, yet something was undone"
    for index, group in enumerate(groups):
        later = [step for each in groups[index + 1 :] for step in each]
        for step in group:
            is_undone = at[step] is At.COMPENSATED and before.at(step) is not At.COMPENSATED
            if is_undone and any(at[each] is At.COMPLETED for each in later):
                return "undone before a later step"
    return None


def _fault_at_rest(state: State) -> str | None:
    """Return what is wrong with a state in which nothing more will happen by itself."""
    at = [where for step, where in state.steps if step != NOTICE]
    if DONE in state.sent:
        desk = {where for step, where in state.desk if step != NOTICE}
        return None if set(at) == desk == {At.CONFIRMED} else "at rest, done, but not everywhere"
    if FAILED not in state.sent or state.end is not SagaState.FAILED:
        return "at rest without an end"
    return "at rest, failed, and a step left standing" if At.COMPLETED in at else None
