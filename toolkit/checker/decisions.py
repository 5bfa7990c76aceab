"""What a coordinator decides on one message: by the toolkit's own `Course`, from the states of its own streams."""

from __future__ import annotations

from typing import NamedTuple

from toolkit.checker.plans import CoordinatedPlan
from toolkit.orchestration.course import Course, Move
from toolkit.protocol.commands import Outcome, Verb
from toolkit.protocol.fence import SagaState
from toolkit.protocol.fence import StepState as At

#: The states of some streams, by the numbers of their steps.
Streams = tuple[At | None, ...]


class PlanMessage(NamedTuple):
    """A message to the coordinator: a step's reply, with its event; without an outcome, its time is up.

    The names START and ABORT stand for the starting event, and for the request to abort.
    """

    name: str
    outcome: Outcome | None = None
    event: str = ""


START, ABORT = PlanMessage("<start>"), PlanMessage("<abort>")


class PlanDecision(NamedTuple):
    """What follows from a message.

    - `end`, `emits`: how the saga ends, if it does, and the event by which the coordinator itself ends it.
    - `is_kept`: the end is another service's event, which no step has emitted: the message is a dead letter.
    - `untaken`: the event that the failed end is asked with, although it does not take it.
    """

    moves: tuple[Move, ...]
    end: SagaState | None
    emits: str | None
    is_kept: bool
    untaken: str | None


class PlanDecisions:
    """The decisions of one plan, each made once; `course` decides, by default by the toolkit's own rules."""

    def __init__(self, plan: CoordinatedPlan, course: type[Course] = Course) -> None:
        self.plan = plan
        self._course = course
        self._made: dict[tuple[Streams, bool, PlanMessage], PlanDecision | None] = {}

    def on(self, received: PlanMessage, desk: Streams, *, is_begun: bool) -> PlanDecision | None:
        """Return the decision in these states of the coordinator's streams; None where the message changes nothing."""
        key = (desk, is_begun, received)
        if key not in self._made:
            self._made[key] = self._decide(received, desk, is_begun=is_begun)
        return self._made[key]

    def _decide(self, received: PlanMessage, desk: Streams, *, is_begun: bool) -> PlanDecision | None:
        plan, (name, outcome, event) = self.plan, received
        states = dict(zip(plan.numbers, desk, strict=True))
        course = self._course(plan.names, states, failed_end=plan.failed_end.name if plan.failed_end else None)
        if received == START:
            if not is_begun:
                course.start()
        elif received == ABORT:
            course.aborted()
        elif outcome is None:
            course.gave_up(name)
        else:
            course.replied(name, Outcome.FINAL if event == plan.completes_with else outcome)
        if not (course.moves or course.end):
            return None
        return self._decision(course, received)

    def _decision(self, course: Course, received: PlanMessage) -> PlanDecision:
        """Return the decision with the events that it emits, as `orchestration.commands` builds them."""
        plan = self.plan
        wanted = plan.end_event(course.end) if course.end else None
        has_to_emit = wanted is not None and wanted != received.event
        asks_end = any(move.verb is Verb.ASK and move.step == self._failed_end for move in course.moves)
        is_back = received.outcome in (Outcome.REFUSED, Outcome.UNDONE)
        is_untaken = asks_end and is_back and not plan.does_end_take(received.event)
        return PlanDecision(
            moves=tuple(course.moves),
            end=course.end,
            emits=wanted if has_to_emit else None,
            is_kept=has_to_emit and wanted not in plan.owns,
            untaken=received.event if is_untaken else None,
        )

    @property
    def _failed_end(self) -> str | None:
        return self.plan.failed_end.name if self.plan.failed_end else None
