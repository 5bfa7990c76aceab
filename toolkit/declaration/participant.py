"""Declare a service's part in a saga: its steps, and the compensations that undo them.

The signature is the graph: the types of the event parameters are the edges in, the returned union the edges out.
A wrong declaration fails while its module is imported, with the function, the fault and the cure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Never, cast

from toolkit.declaration.event_rules import check_saga
from toolkit.declaration.events import Answer, Event, Refusal, Saga
from toolkit.declaration.function_types import DeclareCompensation, DeclareStep, E, EventFunction, P, R, StepFunction
from toolkit.declaration.participant_rules import (
    check_answers,
    check_compensation,
    check_is_new,
    check_name,
    check_options,
    check_step,
)
from toolkit.declaration.retry_policy import RetryPolicy
from toolkit.declaration.signature import Function, Signature, place_of, read_signature
from toolkit.errors import DeclarationError


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Step:
    """One local transaction of a saga; see `Participant.step` for the meaning of its policy."""

    name: str
    participant: str
    saga: Saga
    function: Function
    signature: Signature
    success: type[Event]
    refusals: tuple[type[Refusal], ...]
    timeout: timedelta | None
    remind: timedelta | None
    retry: RetryPolicy
    external: bool

    @property
    def triggers(self) -> tuple[type[Event], ...]:
        """The events that this step runs on; of a join, the events of all its slots."""
        return self.signature.triggers

    @property
    def slots(self) -> Mapping[str, tuple[type[Event], ...]]:
        """The events that fill each event parameter; with several, the step runs once all are filled."""
        return self.signature.slots

    @property
    def is_refusable(self) -> bool:
        """Whether this step may refuse; only then can an abort or a deadline make it refuse."""
        return bool(self.refusals)

    @property
    def asks(self) -> bool:
        """Whether this step waits for an answer from outside."""
        return any(issubclass(event, Answer) for event in self.triggers)

    @property
    def ends_saga(self) -> bool:
        """Whether this step's success ends the saga."""
        return self.success in (self.saga.completes_with, self.saga.fails_with)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Compensation:
    """Undoes one step, at most once, after a later step refused or was undone itself."""

    name: str
    of: Step
    function: Function
    signature: Signature
    emits: type[Event]
    retry: RetryPolicy

    @property
    def saga(self) -> Saga:
        """The saga of its step."""
        return self.of.saga

    @property
    def triggers(self) -> tuple[type[Event], ...]:
        """The events that this compensation runs on; of a join, the events of all its slots."""
        return self.signature.triggers

    @property
    def slots(self) -> Mapping[str, tuple[type[Event], ...]]:
        """The events that fill each event parameter; with several, the step is undone once all are filled."""
        return self.signature.slots


#: The step of a compensation that names none. Its type keeps type checkers from taking None for a step.
_NO_STEP: Any = None


@dataclass(slots=True)
class Participant:
    """A service's part in one saga.

        payment = Participant("payment", saga=order_saga)

    `retry`, `timeout` and `external` are the defaults of its steps; each step can override them.
    """

    name: str
    saga: Saga
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: timedelta | None = None
    external: bool = False
    steps: list[Step] = field(default_factory=list, init=False)
    compensations: list[Compensation] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        check_name("Participant", self.name)
        check_saga(self.saga)
        check_options(f"Participant {self.name!r}", timeout=self.timeout, retry=self.retry, external=self.external)

    def step(
        self,
        *misplaced: Never,
        timeout: timedelta | None = None,
        remind: timedelta | None = None,
        retry: RetryPolicy | None = None,
        external: bool | None = None,
    ) -> DeclareStep:
        """Declare a step. It runs on the event that its parameter takes; with several, once each has its event.

        The first parameter takes an event; type checkers know it by its position, `await reserve_seat(event)`.

        - `timeout`: counted from the (first) event's `occurred_at`, waiting and retries included; past it the step
          refuses.
        - `remind`: how often a step that waits for an `Answer` reminds of it; shorter than the timeout.
        - `external`: the function calls a system that no transaction covers. The call comes before the first use
          of the session, uses the `IdempotencyKey` parameter as its key, and may be repeated.

        Raises:
            DeclarationError: the function's signature is not that of a step.
        """
        if misplaced:
            cure = f"Write @{self.name}.step() above it, with parentheses; options are named"
            raise DeclarationError(_named(misplaced[0]), "a step is declared without parentheses", cure)

        def declare(function: EventFunction[E, P, R]) -> StepFunction[E, P, R]:
            check_options(place_of(function), timeout=timeout, retry=retry, external=external)
            self._add_step(function, timeout=timeout, remind=remind, retry=retry, external=external)
            return cast("StepFunction[E, P, R]", function)

        return declare

    def compensation(
        self, *misplaced: Never, of: StepFunction[Any, ..., Event] = _NO_STEP, retry: RetryPolicy | None = None
    ) -> DeclareCompensation:
        """Declare the compensation that undoes the step `of`; it is external if the step is.

        A parameter `original` receives the event that the step emitted. For an external step it may be None: then
        the outcome of the call is unknown, and the compensation makes sure that the call never takes effect.

        Raises:
            DeclarationError: `of` is not a step of this participant, or the signature is not that of a compensation.
        """
        if misplaced or of is _NO_STEP:
            where = _named(misplaced[0]) if misplaced else f"Participant {self.name!r}"
            cure = f"Write @{self.name}.compensation(of=the_step) above it, with the step's function"
            raise DeclarationError(where, "a compensation is declared without its step", cure)

        def declare(function: EventFunction[E, P, R]) -> EventFunction[E, P, R]:
            self._add_compensation(function, of=of, retry=retry)
            return function

        return declare

    def compensation_of(self, step: Step) -> Compensation | None:
        """Return the compensation that undoes this step, or None."""
        return next((each for each in self.compensations if each.of is step), None)

    def consumed(self) -> set[type[Event]]:
        """Return the events that this participant consumes."""
        handlers: list[Step | Compensation] = [*self.steps, *self.compensations]
        return {event for handler in handlers for event in handler.triggers}

    def emitted(self) -> set[type[Event]]:
        """Return the events that this participant may emit."""
        of_steps = {event for step in self.steps for event in (step.success, *step.refusals)}
        return of_steps | {compensation.emits for compensation in self.compensations}

    def _add_step(
        self,
        function: Function,
        *,
        timeout: timedelta | None,
        remind: timedelta | None,
        retry: RetryPolicy | None,
        external: bool | None,
    ) -> None:
        where, name, signature = place_of(function), function.__name__, read_signature(function)
        check_step(where, signature, saga=self.saga)
        timeout = self.timeout if timeout is None else timeout
        check_answers(where, signature, timeout=timeout, remind=remind)
        check_is_new(where, name, steps=[step.name for step in self.steps])
        self.steps.append(
            Step(
                name=name,
                participant=self.name,
                saga=self.saga,
                function=function,
                signature=signature,
                success=signature.successes[0],
                refusals=signature.refusals,
                timeout=timeout,
                remind=remind,
                retry=retry or self.retry,
                external=self.external if external is None else external,
            )
        )

    def _add_compensation(self, function: Function, *, of: Function, retry: RetryPolicy | None) -> None:
        where = place_of(function)
        step, signature = self._uncompensated_step(where, of), read_signature(function)
        check_compensation(
            where, signature, step=step.name, success=step.success, external=step.external, saga=self.saga
        )
        self.compensations.append(
            Compensation(
                name=function.__name__,
                of=step,
                function=function,
                signature=signature,
                emits=signature.emits[0],
                retry=retry or self.retry,
            )
        )

    def _uncompensated_step(self, where: str, of: Function) -> Step:
        step = next((each for each in self.steps if each.function is of), None)
        if step is None:
            raise DeclarationError(
                where,
                f"it compensates {getattr(of, '__name__', of)!r}, which is not a step of {self.name}",
                "Name a function that is declared above it with @participant.step()",
            )
        if earlier := self.compensation_of(step):
            raise DeclarationError(
                where,
                f"{step.name} is compensated by {earlier.name} already",
                "A step has one compensation: merge them",
            )
        return step


def _named(misplaced: object) -> str:
    return place_of(misplaced) if callable(misplaced) else repr(misplaced)
