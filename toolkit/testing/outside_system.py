"""An outside system for tests: a ledger of idempotency keys, and failures that the test scripts.

It is the base of a fake of a team's own client, whose operations are its methods:

    class FakeReservations(OutsideSystem):
        async def book(self, key: str, flight: str) -> Booking:
            return await self.perform("book", key, Booking(flight), refusal=FullyBooked(flight))

        async def cancel(self, key: str) -> None:
            await self.undo("cancel", key)
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from toolkit.errors import WorldError

T = TypeVar("T")
R = TypeVar("R")

#: A call without an answer ends after this, unless its caller gives up before.
_PATIENCE = timedelta(hours=1)


class NoAnswerError(ConnectionError):
    """The outside system gave no answer, so the outcome is unknown."""


class Outcome(StrEnum):
    """What a call of an outside system does; `NO_ANSWER…` answers only when its caller has given up."""

    SUCCEEDS = "succeeds"
    REFUSES = "refuses"
    FAILS = "fails before its effect"
    FAILS_AFTER = "fails after its effect"
    NO_ANSWER = "gives no answer, and has no effect"
    NO_ANSWER_AFTER = "gives no answer after its effect"


_HAS_EFFECT = (Outcome.SUCCEEDS, Outcome.FAILS_AFTER, Outcome.NO_ANSWER_AFTER)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an outside system."""

    operation: str
    key: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _Plan:
    """The outcomes of the next calls of an operation; `step`: of its calls under that step's key alone."""

    operation: str
    step: str | None
    outcomes: deque[Outcome]

    def __str__(self) -> str:
        of = f" of {self.step}" if self.step else ""
        return f"{self.operation}{of}: {', '.join(self.outcomes)}"

    def is_for(self, operation: str, key: str) -> bool:
        """Whether it has an outcome for a call under this key."""
        is_its_step = self.step is None or key.rpartition(":")[2] == self.step
        return bool(self.outcomes) and operation == self.operation and is_its_step


class OutsideSystem:
    """The ledger of an outside system, and the script of its calls.

    - `knows_keys`: whether a call under a known key repeats its answer without an effect, as providers with
      idempotency keys do; a system without has the effect again.
    - `calls`: every call, in order.
    - `standing`: by key, the results of the calls whose effect was not undone.
    """

    def __init__(self, *, knows_keys: bool = True) -> None:
        self._knows_keys = knows_keys
        self._plans: list[_Plan] = []
        self._at_call: dict[int, Outcome] = {}
        self._results: dict[str, Any] = {}
        self._undone: set[str] = set()
        self._is_down = False
        self.calls: list[Call] = []
        self.effects: Counter[str] = Counter()

    @property
    def standing(self) -> dict[str, Any]:
        """The results of the calls whose effect was not undone, by key."""
        return {key: result for key, result in self._results.items() if key not in self._undone and self.effects[key]}

    @property
    def unused(self) -> list[str]:
        """The parts of the script that no call has reached yet."""
        return [str(each) for each in self._plans if each.outcomes]

    def plan(self, operation: str, *outcomes: Outcome, step: str | None = None) -> None:
        """Script the next calls of an operation, or only those under the key of a step; then it succeeds again.

        Raises:
            WorldError: the system has no method of this name.
        """
        own = sorted(name for name, each in vars(type(self)).items() if callable(each) and not name.startswith("_"))
        if not callable(getattr(self, operation, None)):
            raise WorldError(f"{type(self).__name__} has no operation {operation}: plan one of {', '.join(own)}")
        self._plans.append(_Plan(operation, step, deque(outcomes)))

    def at_call(self, number: int, outcome: Outcome) -> None:
        """Script the call with this number, counted from 1 over all operations."""
        self._at_call[number] = outcome

    def goes_down(self) -> None:
        """Let every call fail before its effect, until `comes_up`."""
        self._is_down = True

    def comes_up(self) -> None:
        """Let calls succeed again."""
        self._is_down = False

    async def perform(self, operation: str, key: str, result: T, *, refusal: R | None = None) -> T | R:
        """Have an effect under this key, and return its result; or the refusal, if the script or an undo says so.

        Raises:
            NoAnswerError: the script says so.
            WorldError: the key is empty, or the script refuses and no refusal is given.
        """
        outcome = self._next(operation, key)
        if key in self._results and self._knows_keys:
            outcome = Outcome.SUCCEEDS if outcome is Outcome.REFUSES else outcome
        elif key in self._undone or outcome is Outcome.REFUSES:
            self._undone.add(key)  # a later call under this key is refused, too
            if refusal is None:
                raise WorldError(f"{operation} refuses {key}, and has no refusal: pass perform(…, refusal=…)")
            return refusal
        elif outcome in _HAS_EFFECT:
            self._results[key] = result
            self.effects[key] += 1
        await self._answer(operation, key, outcome)
        known: T = self._results.get(key, result)  # of an earlier call
        return known

    async def undo(self, operation: str, key: str) -> None:
        """Undo the effect under this key if there was one, and prevent a later one.

        Raises:
            NoAnswerError: the script says so.
        """
        outcome = self._next(operation, key)
        if outcome in _HAS_EFFECT:
            self._undone.add(key)
        await self._answer(operation, key, outcome)

    def assert_one_effect_per_key(self) -> None:
        """Expect that no key has two effects.

        Raises:
            AssertionError: one has; the text has its calls.
        """
        self._assert_none([key for key, count in self.effects.items() if count > 1], "has more than one effect")

    def assert_nothing_stands(self, keys: Iterable[str] | None = None) -> None:
        """Expect that every effect was undone: of all keys, or of these.

        Raises:
            AssertionError: one was not; the text has its calls.
        """
        standing = self.standing
        self._assert_none([key for key in keys or standing if key in standing], "still stands")

    def _assert_none(self, keys: Iterable[str], fault: str) -> None:
        lines = [
            f"{key} {fault}: {', '.join(f'{each.operation} {each.outcome}' for each in self.calls if each.key == key)}"
            for key in keys
        ]
        if lines:
            raise AssertionError("\n".join(lines))

    def _next(self, operation: str, key: str) -> Outcome:
        if not key:
            raise WorldError(f"{operation} was called without a key: pass the step's IdempotencyKey")
        planned = next((each for each in self._plans if each.is_for(operation, key)), None)
        scripted = planned.outcomes.popleft() if planned else Outcome.SUCCEEDS
        outcome = self._at_call.pop(len(self.calls) + 1, scripted)
        outcome = Outcome.FAILS if self._is_down else outcome
        self.calls.append(Call(operation, key, outcome))
        return outcome

    async def _answer(self, operation: str, key: str, outcome: Outcome) -> None:
        if outcome in (Outcome.NO_ANSWER, Outcome.NO_ANSWER_AFTER):
            await asyncio.sleep(_PATIENCE.total_seconds())
        if outcome is not Outcome.SUCCEEDS and outcome is not Outcome.REFUSES:
            raise NoAnswerError(f"{operation} of {key} {outcome}: call again under the same key, or undo it")
