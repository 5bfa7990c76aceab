"""Coordinates the sagas of one service: it asks steps of other services, by messages, and has them undone in reverse.

What to do next is decided by the saga's course, a pure function of the coordinator's own log; all that follows from one
message is one transaction, as in any service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from toolkit.declaration.events import AbortRequested, Event, SagaState, bounded
from toolkit.declaration.service import Service
from toolkit.errors import describe
from toolkit.foreign_code.containment import contained
from toolkit.messaging.envelope import Message
from toolkit.orchestration.commands import Command, Commands
from toolkit.orchestration.course import Course, Move
from toolkit.orchestration.orchestrator import SagaOrchestrator
from toolkit.orchestration.plan import Plan
from toolkit.protocol.commands import Outcome, Reply
from toolkit.protocol.fence import StepState
from toolkit.runtime.coordinated_steps import CoordinatedStep, step_of
from toolkit.runtime.invocation import Failure
from toolkit.runtime.unit_of_work import UnitOfWork


class Coordination:
    """The coordinators of one service, by saga type; `timeouts` override the planned ones by step."""

    def __init__(
        self,
        orchestrators: Mapping[str, type[SagaOrchestrator]],
        *,
        service: str,
        timeouts: Mapping[str, timedelta],
        max_body: int,
    ) -> None:
        self._orchestrators = {saga: kind() for saga, kind in orchestrators.items()}
        self.service = service
        self.timeouts = timeouts
        self.max_body = max_body

    @classmethod
    def of(cls, service: Service, *, timeouts: Mapping[str, timedelta], max_body: int) -> Coordination | None:
        """Return the coordination of a service; None where it coordinates no saga."""
        found = {each.saga.name: each for each in service.orchestrators if issubclass(each, SagaOrchestrator)}
        return cls(found, service=service.name, timeouts=timeouts, max_body=max_body) if found else None

    def dispatch(self, message: Message, work: UnitOfWork) -> bool:
        """Take a message of a saga that is coordinated here; return whether it is."""
        orchestrator = self._orchestrators.get(message.envelope.saga_type)
        if orchestrator is None:
            return False
        saga = CoordinatedSaga(self, orchestrator, message, work)
        try:
            with contained(f"the coordinator {orchestrator.name}"):
                saga.advance()
        except Exception as error:  # noqa: BLE001 -- the author's own functions may raise anything
            saga.own.dead_letter(describe(error), traceback=Failure(error).traceback(), reason="coordinator failed")
        return True


class CoordinatedSaga:
    """One saga of a coordinator, and the message that moves it."""

    def __init__(
        self, coordination: Coordination, orchestrator: SagaOrchestrator, message: Message, work: UnitOfWork
    ) -> None:
        self._coordination = coordination
        self._orchestrator = orchestrator
        self._saga = orchestrator.saga
        self._message = message
        self._work = work
        self.own = self._at(orchestrator.name)

    def advance(self) -> None:
        """Take the message: the start, a reply, a timer or an abort; any other event changes nothing here.

        Raises:
            Exception: the author's own functions raised it; nothing was written.
        """
        envelope = self._message.envelope
        if envelope.timer:
            self._timed_out(envelope.timer)
        elif envelope.reply:
            self._replied(envelope.reply)
        elif isinstance(self._message.event, AbortRequested):
            self._aborted(self._message.event)
        elif type(self._message.event) is self._saga.starts_with:
            self._started()

    def _started(self) -> None:
        if self.own.stream.state is not None:
            self.own.ignored()
            return
        plan = Plan.of(
            self._orchestrator.groups_for(self._message.event),
            failed_end=self._orchestrator.failed_end,
            timeouts=self._coordination.timeouts,
            own=self._orchestrator.name,
        )
        course = plan.course({})
        course.start()
        self._perform(plan, course, begins=True)

    def _replied(self, reply: Reply) -> None:
        plan = self._plan()
        if plan is None or reply.step not in plan.steps:
            return
        course = self._course(plan)
        # Nothing can undo a step that has completed the saga, even if its reply is sent again.
        has_completed = type(self._message.event) is self._saga.completes_with
        course.replied(reply.step, Outcome.FINAL if has_completed else reply.outcome)
        if course.moves:
            self._perform(plan, course)
        else:
            self._at(reply.step).ignored()

    def _timed_out(self, step: str) -> None:
        if (plan := self._plan()) and (planned := plan.steps.get(step)):
            course = self._course(plan)
            course.gave_up(step)
            self._perform(plan, course, reason=f"{step} did not reply within {planned.timeout}")

    def _aborted(self, request: AbortRequested) -> None:
        plan = self._plan() or Plan.without_steps(self._orchestrator.failed_end)
        course = self._course(plan)
        course.aborted()
        self._perform(plan, course, reason=request.reason)

    def _plan(self) -> Plan | None:
        """Return the saga's plan; of a saga that was aborted before it began, one without steps; None of an unknown."""
        if self.own.stream.state is None:
            return None
        return self.own.plan() or Plan.without_steps(self._orchestrator.failed_end)

    def _course(self, plan: Plan) -> Course:
        return plan.course({name: self._at(name).stream.state for name in plan.steps})

    def _perform(self, plan: Plan, course: Course, *, begins: bool = False, reason: str = "") -> None:
        """Write the moves of the saga's course; the author's functions are called before anything is written."""
        commands = Commands(self._orchestrator, plan, self._message, self._received(plan), self._reason(plan, reason))
        built = [commands.of(move, most=self._coordination.max_body) for move in course.moves]
        end = commands.end(course.end, service=self._coordination.service) if course.end else None
        state = SagaState.COMPENSATING if course.is_failing else SagaState.PENDING
        if begins:
            self.own.begun(plan)
        elif self.own.stream.state is StepState.GATHERING and course.moves:
            self.own.moved(StepState.GATHERING, state)
        elif self.own.stream.state is None and course.end is None:
            self.own.moved(StepState.FENCED, SagaState.COMPENSATING, error=commands.reason)
        for move, command in zip(course.moves, built, strict=True):
            self._write(move, command, plan, commands.reason, state)
        if course.end:
            self._end(course.end, end, commands.reason)
        if course.end is SagaState.COMPLETED:
            self._confirm([*plan.steps, self._orchestrator.name])

    def _write(self, move: Move, command: Command | None, plan: Plan, reason: str, state: SagaState) -> None:
        step = self._at(move.step)
        timeout = plan.steps[move.step].timeout
        if timeout and step.stream.state is StepState.EXECUTING:
            step.cancel_timer()
        if command:
            step.commanded(move.to, command, state, reason=reason if move.to is StepState.VOIDING else None)
        elif move.to is StepState.COMPLETED:
            step.done(self._ended() or state)
        else:
            error = step.stream.error or reason if move.to is StepState.FAILED else None
            step.moved(move.to, (move.to is StepState.CONFIRMED and self._ended()) or state, error=error)
        if timeout and move.to is StepState.EXECUTING:
            step.set_timer(timeout)

    def _ended(self) -> SagaState | None:
        """Return how the message's event has ended the saga, if it has."""
        state = self._saga.state_after(type(self._message.event))
        return state if state.is_ended else None

    def _end(self, end: SagaState, event: Event | None, reason: str) -> None:
        """End the saga with this event; without one, its last step has ended it."""
        if event:
            self.own.ended(StepState.FENCED if self.own.stream.state is None else StepState.COMPLETED, event)
        elif self.own.stream.state is not StepState.FENCED:
            is_failed = end is SagaState.FAILED
            to = StepState.FAILED if is_failed else StepState.COMPLETED
            self.own.moved(to, end, error=reason if is_failed else None)

    def _confirm(self, names: Iterable[str]) -> None:
        """Confirm these streams: the last reply is the saga's end, whose announcement may have come before."""
        for step in map(self._at, names):
            if step.stream.state is StepState.COMPLETED:
                step.moved(StepState.CONFIRMED, SagaState.COMPLETED)

    def _received(self, plan: Plan) -> dict[str, Event]:
        """Return what was received: by step its success, by the coordinator's own name the starting event."""
        kinds = {kind.__name__: kind for kind in self._orchestrator.events}
        event, reply = self._message.event, self._message.envelope.reply
        found: dict[str, Event] = {}
        for name in (self._orchestrator.name, *plan.steps):
            if (kept := self._at(name).kept()) and kept.event_type in kinds:
                found[name] = kept.read(name, kinds[kept.event_type])
        if type(event) is self._saga.starts_with:
            found.setdefault(self._orchestrator.name, event)
        if reply and reply.outcome in (Outcome.COMPLETED, Outcome.FINAL):
            found.setdefault(reply.step, event)
        return found

    def _reason(self, plan: Plan, reason: str) -> str:
        """Return why the saga fails: the first error in the log, else that of the message."""
        kept = (self._at(name).stream.error for name in (*plan.steps, self._orchestrator.name))
        return bounded(next(filter(None, kept), reason or str(getattr(self._message.event, "reason", ""))))

    def _at(self, name: str) -> CoordinatedStep:
        is_own = name == self._orchestrator.name
        step = step_of(self._saga, name, service=self._coordination.service, starts=is_own)
        return CoordinatedStep(self._work, step, self._message)
