"""Read a step's or a compensation's signature: the events and resources that it takes, the events that it may emit.

Each parameter that takes an event is a slot; its union names the events that fill it. With several slots the function
is a join: it runs once each slot holds an event. An annotation without a meaning raises a `DeclarationError` with the
function, the fault and the cure.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Union

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from toolkit.declaration.events import Event, IdempotencyKey, Refusal
from toolkit.errors import DeclarationError

Function = Callable[..., Awaitable[Event]]

_SIGNS: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_ANNOTATE = "Annotate it with AsyncSession, IdempotencyKey, an Event, or a class that the Service provides"
_EACH = "Declare each parameter by its name: arguments are given by their types"
_WAITS = "Leave out None: the step waits until the parameter has an event, and refuses after its timeout"
_RETURNS = "Return an event in every case: an Event for the success, a Refusal for a business refusal"


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a step's function, by role, and the events that it may return.

    `slots` has the events that each event parameter takes; `event` is the first of these parameters.
    """

    slots: Mapping[str, tuple[type[Event], ...]]
    triggers: tuple[type[Event], ...]
    emits: tuple[type[Event], ...]
    event: str
    original: str | None
    originals: tuple[type[Event], ...]
    original_may_be_none: bool
    session: str | None
    key: str | None
    resources: Mapping[str, type]

    @property
    def is_join(self) -> bool:
        """Whether the function takes several events, and runs once each of its slots holds one."""
        return len(self.slots) > 1

    @property
    def successes(self) -> tuple[type[Event], ...]:
        """The events among `emits` that are not refusals; a step has exactly one."""
        return tuple(event for event in self.emits if not issubclass(event, Refusal))

    @property
    def refusals(self) -> tuple[type[Refusal], ...]:
        """The refusals among `emits`."""
        return tuple(event for event in self.emits if issubclass(event, Refusal))


def read_signature(function: Function) -> Signature:
    """Read a step's or a compensation's signature.

    Raises:
        DeclarationError: an annotation is missing or has no meaning; the text names the cure.
    """
    where = place_of(function)
    if not inspect.iscoroutinefunction(function):
        raise DeclarationError(where, "it is not a coroutine function", "Write `async def`")
    try:
        hints = typing.get_type_hints(function)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DeclarationError(
            where, f"an annotation can't be resolved: {error}", "Import it at module level"
        ) from error
    names = _names(where, inspect.signature(function).parameters.values(), hints)
    if "return" not in hints:
        raise DeclarationError(where, "it has no return type", "Declare the events that it emits, `-> Done | NotDone`")
    slots = _slots(where, names, hints)
    return Signature(
        slots=slots,
        triggers=tuple(event for events in slots.values() for event in events),
        emits=_events(where, hints["return"], "the return type", no_none=_RETURNS),
        event=next(iter(slots)),
        **_roles(where, [name for name in names if name not in slots], hints),
    )


def _names(where: str, parameters: Iterable[inspect.Parameter], hints: Mapping[str, Any]) -> list[str]:
    """Return the parameters' names; each is annotated, and takes one argument."""
    names = []
    for each in parameters:
        sign = _SIGNS.get(each.kind, "")
        if each.name not in hints:
            raise DeclarationError(where, f"the parameter {sign + each.name!r} has no annotation", _ANNOTATE)
        if sign:
            raise DeclarationError(where, f"the parameter {sign + each.name!r} takes any number of arguments", _EACH)
        names.append(each.name)
    return names


def _slots(where: str, names: list[str], hints: dict[str, Any]) -> dict[str, tuple[type[Event], ...]]:
    """Return the events that fill each event parameter; no event fills two of them."""
    taking = [name for name in names if name != "original" and any(map(_is_event, _members(hints[name])))]
    if not taking:
        taken = ", ".join(f"{name!r} is {_shown(hints[name])}" for name in names)
        fault = f"it takes no event: {taken}" if taken else "it takes no event"
        cure = "Take the event as a parameter, `event: SomethingHappened`; its class subclasses toolkit.Event"
        raise DeclarationError(where, fault, cure)
    slots = {name: _events(where, hints[name], f"the parameter {name!r}", no_none=_WAITS) for name in taking}
    for (one, events), (other, others) in combinations(slots.items(), 2):
        if shared := [event for event in events if event in others]:
            raise DeclarationError(
                where,
                f"{shared[0].__name__} fills both {one!r} and {other!r}",
                "Let each event fill one parameter: several parameters mean AND, a union means OR",
            )
    return slots


def _roles(where: str, names: list[str], hints: dict[str, Any]) -> dict[str, Any]:
    roles: dict[str, Any] = {
        "original": None, "originals": (), "original_may_be_none": False, "session": None, "key": None, "resources": {}
    }  # fmt: skip
    for name in names:
        hint = hints[name]
        if name == "original":
            roles["original"] = name
            roles["originals"] = _events(where, hint, "the parameter 'original'", may_be_none=True)
            roles["original_may_be_none"] = type(None) in _members(hint)
        elif hint is IdempotencyKey:
            roles["key"] = name
        elif isinstance(hint, type) and issubclass(hint, AsyncSession):
            roles["session"] = name
        elif isinstance(hint, type) and issubclass(hint, Session):
            fault = f"the parameter {name!r} takes a Session, whose statements would block all other steps"
            raise DeclarationError(where, fault, "Use sqlmodel.ext.asyncio.session.AsyncSession, and await its calls")
        elif isinstance(hint, type):
            roles["resources"][name] = hint
        else:
            raise DeclarationError(
                where,
                f"the parameter {name!r} is annotated {hint!r}, which is nothing that a step may take",
                _ANNOTATE,
            )
    return roles


def _events(
    where: str, hint: Any, what: str, *, may_be_none: bool = False, no_none: str = _ANNOTATE
) -> tuple[type[Event], ...]:
    """Return the events of an annotation; `no_none` is the cure where None is among them."""
    members = tuple(each for each in _members(hint) if not (may_be_none and each is type(None)))
    for member in members:
        if member is type(None):
            raise DeclarationError(where, f"{what} may be None, which is not an Event", no_none)
        if not _is_event(member):
            raise DeclarationError(
                where, f"{what} is {_shown(member)}, which is not an Event", "Subclass toolkit.Event"
            )
        if not member.__owner__:
            raise DeclarationError(
                where,
                f"{what} is {member.__name__}, which has no owner",
                f'Declare `class {member.__name__}(..., owner="the service that emits it")`',
            )
    return members


def _shown(hint: Any) -> str:
    return getattr(hint, "__name__", repr(hint)) if isinstance(hint, type) else repr(hint)


def _is_event(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Event)


def _members(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def is_coroutine_function(function: object) -> bool:
    """Whether calling it returns a coroutine; an object with an async `__call__` counts."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 -- the method itself is wanted, not whether there is one


def place_of(function: Callable[..., object]) -> str:
    """Return a function's module and name, as errors show them."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
