"""The types of the functions that a participant declares, for type checkers.

They see the first parameter, which takes an event, and the return type. The further parameters may have any type here:
the declaration itself checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from toolkit.declaration.events import Event

#: The event that a function takes first, its further parameters, and the events that it returns.
E = TypeVar("E", bound=Event)
P = ParamSpec("P")
R = TypeVar("R", bound=Event)
#: The same in a protocol, where their variance is declared.
E_contra = TypeVar("E_contra", bound=Event, contravariant=True)
R_co = TypeVar("R_co", bound=Event, covariant=True)

#: A function that may be declared as a step or a compensation.
EventFunction = Callable[Concatenate[E, P], Coroutine[Any, Any, R]]


class StepFunction(Protocol[E_contra, P, R_co]):
    """A function that is declared as a step: `compensation(of=…)` takes no other one.

    `__saga_step__` is there for type checkers alone, which know a step by it.
    """

    __name__: str
    __saga_step__: None

    def __call__(self, event: E_contra, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Run the function by itself, as the tests of a service do; the event is given by its position."""
        ...


class DeclareStep(Protocol):
    """The decorator `@participant.step(…)`."""

    def __call__(self, function: EventFunction[E, P, R], /) -> StepFunction[E, P, R]:
        """Declare the function as a step."""
        ...


class DeclareCompensation(Protocol):
    """The decorator `@participant.compensation(of=…)`."""

    def __call__(self, function: EventFunction[E, P, R], /) -> EventFunction[E, P, R]:
        """Declare the function as a compensation."""
        ...
