"""Declare a service's part in a saga: its steps, and the compensations that undo them.

The signature is the graph: the type of the first parameter is the edge in, the returned union the edges out.
What is declared wrongly fails here, while the module is imported, with the function, the fault and the cure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from toolkit.declaration.event_rules import check_buildable, check_event, check_saga
from toolkit.declaration.events import PLAIN_WORD, Event, Refusal, Saga
from toolkit.declaration.retry_policy import RetryPolicy
from toolkit.declaration.signature import Function, Signature, place_of, read_signature
from toolkit.errors import DeclarationError

F = TypeVar("F", bound=Function)


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
    retry: RetryPolicy
    external: bool

    @property
    def triggers(self) -> tuple[type[Event], ...]:
        """The events that this step runs on."""
        return self.signature.triggers

    @property
    def is_refusable(self) -> bool:
        """Whether this step may say no, and so whether an abort or a deadline can make it."""
        return bool(self.refusals)

    @property
    def ends_saga(self) -> bool:
        """Whether this step's success is an end of the saga."""
        return self.success in (self.saga.completes_with, self.saga.fails_with)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Compensation:
    """What undoes one step, once, when a later step refused or was undone itself."""

    name: str
    of: Step
    function: Function
    signature: Signature
    emits: type[Event]
    retry: RetryPolicy

    @property
    def triggers(self) -> tuple[type[Event], ...]:
        """The events that this compensation runs on."""
        return self.signature.triggers


def check_name(kind: str, name: object) -> None:
    """Check the name of a service or a participant: queues, files and metrics are called after it.

    Raises:
        DeclarationError: it is no plain word.
    """
    if not (isinstance(name, str) and PLAIN_WORD.fullmatch(name)):
        cure = "Take letters, digits, `_` and `-`, 64 at most: queues and files are called after it"
        raise DeclarationError(f"{kind} {name!r}", "its name is no plain word", cure)


def _check_options(where: str, *, timeout: object, retry: object, external: object) -> None:
    if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta(0)):
        raise DeclarationError(
            where, f"its timeout {timeout!r} is no time above zero", "Declare `timeout=timedelta(seconds=30)`, say"
        )
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise DeclarationError(
            where, f"its retry {retry!r} is no RetryPolicy", "Declare `retry=RetryPolicy(attempts=3)`, say"
        )
    if external is not None and not isinstance(external, bool):
        raise DeclarationError(where, f"its external={external!r} is neither True nor False", "Say one of them")


@dataclass(slots=True)
class Participant:
    """A service's part in one saga.

        payment = Participant("payment", saga=order_saga)

    `retry`, `timeout` and `external` hold for every step that does not say otherwise itself.
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
        _check_options(f"Participant {self.name!r}", timeout=self.timeout, retry=self.retry, external=self.external)

    def step(
        self,
        *misplaced: object,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        external: bool | None = None,
    ) -> Callable[[F], F]:
        """Declare the step that runs on the event which the function takes first.

        - `timeout`: counted from the event's `occurred_at`, waiting and retries included; past it the step refuses.
        - `external`: the function calls something that no transaction covers. It takes the outside call before
          its first use of the session, under the `IdempotencyKey` that it asks for, and may be run again.

        Raises:
            DeclarationError: the function's signature is not that of a step.
        """
        if misplaced:
            cure = f"Write @{self.name}.step() above it, with parentheses; options are named"
            raise DeclarationError(_named(misplaced[0]), "a step is declared without parentheses", cure)

        def declare(function: F) -> F:
            _check_options(place_of(function), timeout=timeout, retry=retry, external=external)
            self._add_step(function, timeout=timeout, retry=retry, external=external)
            return function

        return declare

    def compensation(
        self, *misplaced: object, of: Function | None = None, retry: RetryPolicy | None = None
    ) -> Callable[[F], F]:
        """Declare what undoes the step `of`; external if the step is.

        A parameter `original` receives the event that the step emitted. For an external step it may be None:
        then nobody knows whether the call took effect, and the compensation sees to it that it never will.

        Raises:
            DeclarationError: `of` is no step of this participant, or the signature is not that of a compensation.
        """
        if misplaced or of is None:
            where = _named(misplaced[0]) if misplaced else f"Participant {self.name!r}"
            cure = f"Write @{self.name}.compensation(of=the_step) above it, with the step's function"
            raise DeclarationError(where, "a compensation does not say of which step", cure)
        undone = of

        def declare(function: F) -> F:
            self._add_compensation(function, of=undone, retry=retry)
            return function

        return declare

    def compensation_of(self, step: Step) -> Compensation | None:
        """Return what undoes this step, or None."""
        return next((each for each in self.compensations if each.of is step), None)

    def consumed(self) -> set[type[Event]]:
        """Return the events that this participant listens to."""
        handlers: list[Step | Compensation] = [*self.steps, *self.compensations]
        return {event for handler in handlers for event in handler.triggers}

    def emitted(self) -> set[type[Event]]:
        """Return the events that this participant may emit."""
        of_steps = {event for step in self.steps for event in (step.success, *step.refusals)}
        return of_steps | {compensation.emits for compensation in self.compensations}

    def _add_step(
        self, function: Function, *, timeout: timedelta | None, retry: RetryPolicy | None, external: bool | None
    ) -> None:
        signature = read_signature(function)
        successes = tuple(event for event in signature.emits if not issubclass(event, Refusal))
        refusals = tuple(event for event in signature.emits if issubclass(event, Refusal))
        where = place_of(function)
        if len(successes) != 1:
            names = ", ".join(event.__name__ for event in successes) or "none"
            raise DeclarationError(
                where,
                f"a step has exactly one success among what it returns, here: {names}",
                "Return one Event for the success, and a subclass of Refusal for each way to say no",
            )
        self._check_events(where, signature)
        for refusal in refusals:
            check_buildable(where, refusal, self.saga, "a refusal is also emitted for a step that never ran")
        for step in self.steps:
            for trigger in signature.triggers:
                if trigger in step.triggers:
                    raise DeclarationError(
                        where,
                        f"{trigger.__name__} already triggers the step {step.name}",
                        "Let one step do both, or let the second one listen to what the first emits",
                    )
        if any(step.name == function.__name__ for step in self.steps):
            raise DeclarationError(
                where, "a step of this name exists already", "Rename one: the name is the fence's key"
            )
        if signature.original is not None:
            raise DeclarationError(
                where, "a step has no original", "Only a compensation takes a parameter named `original`"
            )
        self.steps.append(
            Step(
                name=function.__name__,
                participant=self.name,
                saga=self.saga,
                function=function,
                signature=signature,
                success=successes[0],
                refusals=refusals,
                timeout=self.timeout if timeout is None else timeout,
                retry=retry or self.retry,
                external=self.external if external is None else external,
            )
        )

    def _add_compensation(self, function: Function, *, of: Function, retry: RetryPolicy | None) -> None:
        where = place_of(function)
        step = next((each for each in self.steps if each.function is of), None)
        if step is None:
            raise DeclarationError(
                where,
                f"it compensates {getattr(of, '__name__', of)!r}, which is no step of {self.name}",
                "Name a function that stands above it under @participant.step",
            )
        if earlier := self.compensation_of(step):
            raise DeclarationError(
                where,
                f"{step.name} is compensated by {earlier.name} already",
                "A step has one compensation: merge them",
            )
        signature = read_signature(function)
        if len(signature.emits) != 1 or issubclass(signature.emits[0], Refusal):
            raise DeclarationError(
                where,
                "a compensation emits exactly one event, and never a refusal",
                "Return the one event on which the step before goes on; let an error raise, and it is retried",
            )
        if signature.originals and not issubclass(step.success, signature.originals):
            names = " | ".join(event.__name__ for event in signature.originals)
            raise DeclarationError(
                where,
                f"`original` is {names}, but {step.name} emits {step.success.__name__}",
                f"Declare `original: {step.success.__name__}`",
            )
        if step.external and signature.original is not None and not signature.original_may_be_none:
            raise DeclarationError(
                where,
                f"{step.name} is external, so its outcome may be unknown when it is undone",
                f"Declare `original: {step.success.__name__} | None`, and void by key where it is None",
            )
        self._check_events(where, signature)
        check_buildable(where, signature.emits[0], self.saga, "it is also emitted where there was nothing to undo")
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

    def _check_events(self, where: str, signature: Signature) -> None:
        for event_type in (*signature.triggers, *signature.emits):
            check_event(where, event_type, self.saga)


def _named(misplaced: object) -> str:
    return place_of(misplaced) if callable(misplaced) else repr(misplaced)
