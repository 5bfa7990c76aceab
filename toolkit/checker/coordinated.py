"""The state space of a coordinated saga: every interleaving of a coordinator and of the steps that one plan asks.

A message once sent may be delivered at any moment, any number of times, in any order; that it is delivered more than
once, that a step's time is up, or that an abort comes, nothing may rely on. One move is one transaction. A second
replica of the coordinator may decide on what it read before; it commits if no stream that it moves was moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from toolkit.checker.decisions import ABORT, START, PlanDecision, PlanDecisions, PlanMessage
from toolkit.checker.moves import Invariant
from toolkit.checker.plan_states import (
    Command,
    Happening,
    Messages,
    PlanAction,
    PlanMove,
    Slow,
    State,
    with_state,
)
from toolkit.checker.plans import AskedStep, CoordinatedPlan
from toolkit.orchestration.course import Course
from toolkit.protocol.commands import Outcome, Verb
from toolkit.protocol.fence import Arrival, decide
from toolkit.protocol.fence import Decision as Fence
from toolkit.protocol.fence import StepState as At

#: A move, and the state that it leads to.
Following = tuple[PlanMove, State]

_OVER = (At.FAILED, At.FENCED, At.COMPENSATED)


class AskedServices:
    """What the services of the steps do on a command."""

    #: The state of a step that was undone before it ran.
    fenced: At | None = At.FENCED

    def __init__(self, plan: CoordinatedPlan, messages: Messages) -> None:
        self.plan = plan
        self.messages = messages

    def run(self, state: State, command: Command) -> Iterable[Following]:
        """Yield what a command leads to; nothing, where it changes nothing."""
        step = self.plan.steps[self.plan.numbers[command.step]]
        return self._asked(state, step) if command.verb is Verb.ASK else self.undone(state, step)

    def unasked(self, state: State) -> Iterable[Following]:
        """Yield what the steps do without a command: nothing."""
        return ()

    def undone(self, state: State, step: AskedStep) -> Iterator[Following]:
        """Yield what the command to undo a step leads to."""
        fence = decide(Arrival.COMPENSATION, state.steps[self.plan.numbers[step.name]])
        if fence is Fence.FENCE and (step.undone or step.refusals):
            outcome, event = (Outcome.UNDONE, step.undone) if step.undone else (Outcome.REFUSED, step.refusals[0])
            yield self.moved(state, step, PlanAction.FENCED, self.fenced, PlanMessage(step.name, outcome, event))
        elif fence is Fence.UNDO and step.undone:
            reply = PlanMessage(step.name, Outcome.UNDONE, step.undone)
            yield self.moved(state, step, PlanAction.UNDONE, At.COMPENSATED, reply)

    def moved(self, state: State, step: AskedStep, action: PlanAction, to: At | None, reply: PlanMessage) -> Following:
        """Append to a step's own stream, and send its reply."""
        is_end = action is PlanAction.COMPLETES and step.success in (self.plan.completes_with, self.plan.fails_with)
        after = state._replace(
            steps=with_state(state.steps, self.plan.numbers[step.name], to),
            sent=state.sent | self.messages.bit(reply),
            ends=(*state.ends, step.success) if is_end else state.ends,
        )
        return PlanMove(action, step.name, reply.event), self.messages.settled(after)

    def _asked(self, state: State, step: AskedStep) -> Iterator[Following]:
        if decide(Arrival.FORWARD, state.steps[self.plan.numbers[step.name]]) is not Fence.RUN:
            return
        outcome = Outcome.FINAL if step.is_final else Outcome.COMPLETED
        yield self.moved(state, step, PlanAction.COMPLETES, At.COMPLETED, PlanMessage(step.name, outcome, step.success))
        # Refusals that are one to the failed end are one.
        for refusal in {self.plan.does_end_take(each): each for each in reversed(step.refusals)}.values():
            yield self.moved(
                state, step, PlanAction.REFUSES, At.FAILED, PlanMessage(step.name, Outcome.REFUSED, refusal)
            )


class Coordinator:
    """What the coordinator does on a message, on one replica or on two."""

    def __init__(self, plan: CoordinatedPlan, messages: Messages, course: type[Course], *, replicas: int) -> None:
        self.plan = plan
        self.messages = messages
        self.decisions = PlanDecisions(plan, course)
        self._has_slow = replicas > 1
        #: With parallel steps each message takes the next position of the coordinator's own stream: what another
        #: replica reads before, it never commits after.
        self.is_shared = plan.is_parallel

    def takes(self, state: State, received: PlanMessage) -> Iterator[Following]:
        """Yield the decision on a message, and what else another replica may decide after it."""
        decision = self.decisions.on(received, state.desk, is_begun=state.is_begun)
        if decision is None or state.end:
            return
        move = PlanMove(PlanAction.DECIDES, received=received, decision=decision)
        after = self._applied(state, decision)
        yield move, after
        if self._has_slow and not self.is_shared and state.slow is None:
            for other in self._receivable(state):
                slow = Slow(other, state.desk, state.is_begun)
                if self._is_open(slow, after):
                    yield move._replace(reads=other), after._replace(slow=slow)

    def timed_out(self, state: State) -> Iterator[Following]:
        """Yield what the timers of the steps that have not replied lead to."""
        for step, at in zip(self.plan.steps, state.desk, strict=True):
            if at is At.EXECUTING and step.has_timeout:
                yield from self.takes(state, PlanMessage(step.name))

    def confirms(self, state: State) -> Iterator[Following]:
        """Yield what the announcement that the saga has completed leads to."""
        if self.plan.completes_with in state.ends and At.COMPLETED in state.desk:
            desk = tuple(At.CONFIRMED if at is At.COMPLETED else at for at in state.desk)
            yield PlanMove(PlanAction.CONFIRMS), self._settled(state._replace(desk=desk))

    def commits(self, state: State) -> Iterator[Following]:
        """Yield what the slow replica's transaction leads to."""
        slow = state.slow
        if slow and (decision := self.decisions.on(slow.received, slow.desk, is_begun=slow.is_begun)):
            after = self._applied(state, decision)._replace(slow=None)
            taken = after.taken | self.messages.bit(slow.received) & after.sent
            yield (
                PlanMove(PlanAction.DECIDES, received=slow.received, decision=decision),
                after._replace(taken=taken),
            )

    def _applied(self, state: State, decision: PlanDecision) -> State:
        """Return the state after a decision; one that keeps the message as a dead letter changes nothing."""
        if decision.is_kept:
            return state
        desk, sent = list(state.desk), state.sent
        for move in decision.moves:
            desk[self.plan.numbers[move.step]] = move.to
            is_untaken = decision.untaken and move.step == self.plan.steps[-1].name
            if move.verb and not is_untaken:
                sent |= self.messages.bit(Command(move.verb, move.step))
        ends = (*state.ends, decision.emits) if decision.emits else state.ends
        return self._settled(state._replace(desk=tuple(desk), sent=sent, ends=ends, is_begun=True, end=decision.end))

    def _settled(self, state: State) -> State:
        after = self.messages.settled(state)
        return after._replace(slow=None) if after.slow and not self._is_open(after.slow, after) else after

    def _receivable(self, state: State) -> Iterator[PlanMessage]:
        yield from (each for each in self.messages.within(state.sent) if isinstance(each, PlanMessage))
        timed = zip(self.plan.steps, state.desk, strict=True)
        yield from (PlanMessage(step.name) for step, at in timed if at is At.EXECUTING and step.has_timeout)

    def _is_open(self, slow: Slow, state: State) -> bool:
        """Whether a slow transaction may still commit, and does something else than one that reads now."""
        decision = self.decisions.on(slow.received, slow.desk, is_begun=slow.is_begun)
        if decision is None or decision.is_kept or state.end or slow.is_begun is not state.is_begun:
            return False
        moved = [self.plan.numbers[move.step] for move in decision.moves]
        is_free = all(state.desk[each] is slow.desk[each] for each in moved)
        return is_free and decision != self.decisions.on(slow.received, state.desk, is_begun=state.is_begun)


class Model:
    """All moves of one plan, and the invariants; `replicas` is how many the coordinator has, one or two.

    Tests take away a rule by another `course`, or by other `services`. Models of plans with the same steps may share
    `messages`, and so their states.
    """

    def __init__(
        self,
        plan: CoordinatedPlan,
        *,
        replicas: int = 1,
        course: type[Course] = Course,
        services: type[AskedServices] = AskedServices,
        messages: Messages | None = None,
    ) -> None:
        self.plan = plan
        self.messages = messages or Messages(plan)
        self.services = services(plan, self.messages)
        self.coordinator = Coordinator(plan, self.messages, course, replicas=replicas)
        nothing = (None,) * len(plan.steps)
        self.first = State(nothing, nothing, sent=self.messages.bit(START))

    def moves(self, state: State) -> Iterator[Happening]:
        """Yield all that can happen next."""
        for message in self.messages.within(state.sent):
            yield from self._delivered(state, message, self._takes(state, message))
        yield from ((*each, True) for each in self.services.unasked(state))
        abort = self.messages.bit(ABORT)
        if state.end is None and not state.sent & abort:
            yield PlanMove(PlanAction.ABORT), state._replace(sent=state.sent | abort), False
        yield from ((*each, False) for each in self.coordinator.timed_out(state))
        yield from ((*each, True) for each in self.coordinator.confirms(state))
        yield from ((*each, True) for each in self.coordinator.commits(state))

    def violation(self, before: State, after: State) -> Invariant | None:
        """Return the invariant that a move breaks."""
        planned = range(len(self.plan.planned))
        if len(after.ends) > 1:
            return Invariant.ONE_END
        if self.plan.completes_with in after.ends and any(after.steps[each] in _OVER for each in planned):
            return Invariant.NOTHING_LOST
        for each in (each for each in planned if after.steps[each] is not before.steps[each]):
            if after.steps[each] is At.COMPENSATED and self._stand_after(each, after):
                return Invariant.REVERSE_ORDER
            if after.steps[each] is At.COMPLETED and self._is_undone_before(each, after):
                return Invariant.NOTHING_LATE
        if self.plan.fails_with in after.ends and any(after.steps[each] is At.COMPLETED for each in planned):
            return Invariant.NOTHING_LEFT
        return None

    def counts(self, state: State) -> bool:
        """Whether a violation in this state is one of what is explored; of one plan alone, each is."""
        return True

    def has_ended(self, state: State) -> bool:
        """Whether the saga has ended, and the coordinator has seen it end so."""
        return state.end is not None and self.plan.end_event(state.end) in state.ends

    def _stand_after(self, number: int, state: State) -> bool:
        """Whether a step of a later group stands that could be undone."""
        later = self.plan.later(number)
        return any(state.steps[each] is At.COMPLETED and not self.plan.steps[each].is_final for each in later)

    def _is_undone_before(self, number: int, state: State) -> bool:
        return any(state.steps[each] is At.COMPENSATED for each in self.plan.earlier(number))

    def _takes(self, state: State, message: Command | PlanMessage) -> Iterable[Following]:
        if isinstance(message, Command):
            return self.services.run(state, message)
        return self.coordinator.takes(state, message)

    def _delivered(
        self, state: State, message: Command | PlanMessage, found: Iterable[Following]
    ) -> Iterator[Happening]:
        """Yield what a delivery leads to; a message that changes nothing is used up all the same."""
        bit = self.messages.bit(message)
        for move, after in [*found] or [(PlanMove(PlanAction.IDLE), state)]:
            yield move, after._replace(taken=after.taken | bit & after.sent), not state.taken & bit
