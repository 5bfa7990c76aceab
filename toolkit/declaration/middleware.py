"""Functions that a service wraps around its steps and compensations.

async def tenant(call_next, step, event):
    with tenant_of(event):
        return await call_next()
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence

from toolkit.declaration.events import Event
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.signature import is_coroutine_function, place_of
from toolkit.errors import DeclarationError

#: Runs what the middleware wraps, the step or the next middleware, and returns the event that it emits.
CallNext = Callable[[], Awaitable[Event]]
#: Wraps a step or compensation: it receives the event that came in, and returns the event that is emitted.
Middleware = Callable[[CallNext, Step | Compensation, Event], Awaitable[Event]]

_CURE = "Declare it as `async def tenant(call_next, step, event)`, and return what `await call_next()` returns"


def check_middleware(service: str, middleware: Sequence[Middleware]) -> None:
    """Check that each middleware of a service is a coroutine function of three parameters.

    Raises:
        DeclarationError: one is not, or the service has no sequence of them.
    """
    if not isinstance(middleware, Sequence) or isinstance(middleware, str):
        fault = f"its middleware {_shown(middleware)} is not a sequence"
        raise DeclarationError(f"Service {service!r}", fault, "Pass a list: Service(middleware=[tenant])")
    for each in middleware:
        if not is_coroutine_function(each):
            fault = f"its middleware {_shown(each)} is not a coroutine function"
            raise DeclarationError(f"Service {service!r}", fault, _CURE)
        if not _takes_three(each):
            fault = f"its middleware {_shown(each)} can't be called with (call_next, step, event)"
            raise DeclarationError(f"Service {service!r}", fault, _CURE)


def _takes_three(middleware: Middleware) -> bool:
    """Whether the middleware can be called with three positional arguments, as the executor calls it."""
    try:
        inspect.signature(middleware).bind("call_next", "step", "event")
    except TypeError:
        return False
    return True


def _shown(middleware: object) -> str:
    return place_of(middleware) if callable(middleware) else repr(middleware)
