"""What the models of interleavings share: the states that were visited, the nearest first, and the way to each."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from toolkit.protocol.fence import StepState

S = TypeVar("S", bound=Hashable)


@dataclass(slots=True)
class Exploration:
    """What was found: how many states, which transitions of a stream, and the shortest way to each fault."""

    states: int = 0
    at_rest: int = 0
    transitions: set[tuple[StepState | None, StepState]] = field(default_factory=set)
    faults: dict[str, list[str]] = field(default_factory=dict)


class Ways(Generic[S]):
    """The states that can be reached from the first one; what follows from a state is added while it is visited."""

    def __init__(self, first: S) -> None:
        self._came_by: dict[S, tuple[S, str] | None] = {first: None}
        self._waiting = deque([first])

    def __iter__(self) -> Iterator[S]:
        while self._waiting:
            yield self._waiting.popleft()

    def __len__(self) -> int:
        return len(self._came_by)

    def add(self, after: S, *, before: S, by: str) -> None:
        """Add a state that a move leads to, unless another way leads there already."""
        if after not in self._came_by:
            self._came_by[after] = before, by
            self._waiting.append(after)

    def note(self, faults: dict[str, list[str]], fault: str | None, state: S, *last: str) -> None:
        """Note a fault at its first time, with the way to the state and the last move."""
        if fault and fault not in faults:
            faults[fault] = [*self._to(state), *last]

    def _to(self, state: S) -> list[str]:
        way: list[str] = []
        while step := self._came_by[state]:
            state, by = step
            way.append(by)
        return way[::-1]
