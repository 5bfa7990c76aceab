"""Calls the function of a step or a compensation with the arguments of its signature, inside the middleware.

The returned event must be one that the function declares.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from toolkit import failpoints
from toolkit.declaration.encoding import Original
from toolkit.declaration.events import Event, IdempotencyKey
from toolkit.declaration.middleware import Middleware
from toolkit.declaration.participant import Compensation, Step
from toolkit.errors import ContentionError, DatabaseUnavailableError, StepError, describe
from toolkit.foreign_code.containment import contained
from toolkit.foreign_code.time_limits import LONGEST_STEP, at_most
from toolkit.persistence.database_errors import breaks_off, is_contention, is_unfit
from toolkit.persistence.driver_errors import without_values
from toolkit.persistence.step_session import StepSession

#: A traceback in a dead letter is for reading; its last frames show the cause.
_TRACEBACK_CHARS = 8_000
_NOT_LENT = nullcontext()

#: Reads the events of a join, by the parameters that take them.
Joining = Callable[[], Mapping[str, Event]]


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that raised, or was cut off."""

    error: Exception
    was_cut: bool = False

    def __post_init__(self) -> None:
        without_values(self.error)  # a step may have used a database past SQLAlchemy

    def traceback(self) -> str:
        """Return the last part of the traceback."""
        return "".join(traceback.format_exception(self.error))[-_TRACEBACK_CHARS:]


def raise_unless_at_fault(failure: Failure, handler: Step | Compensation) -> None:
    """Return if the attempt failed by itself.

    Raises:
        ContentionError: another transaction was in its way.
        DatabaseUnavailableError: its connection broke, or the server could not serve it.
    """
    if is_contention(failure.error):
        raise ContentionError(f"{handler.name} met another transaction") from failure.error
    if breaks_off(failure.error) or is_unfit(failure.error):
        raise DatabaseUnavailableError(
            f"the database broke off under {handler.name}: {describe(failure.error)}"
        ) from failure.error


async def bounded(
    call: Coroutine[Any, Any, Event | Failure], handler: Step | Compensation, session: StepSession | None
) -> Event | Failure:
    """Run a function that holds the transaction of its batch, and cut it off when it takes too long."""
    try:
        return await at_most(LONGEST_STEP, call, unless=lambda: session is not None and session.is_busy)
    except TimeoutError:
        fault = f"{handler.name} took more than {LONGEST_STEP} seconds, and all others wait: make it external"
        return Failure(StepError(fault), was_cut=True)


class Invocation:
    """Holds the resources that a service provides to its steps, and the middleware around them, outermost first."""

    def __init__(self, resources: Mapping[type, Any], *, middleware: Sequence[Middleware] = ()) -> None:
        self._resources = resources
        self._middleware = tuple(middleware)

    async def attempt(
        self,
        handler: Step | Compensation,
        event: Event,
        session: StepSession | None,
        *,
        saga_id: str,
        original: Original | None,
        joined: Joining | None = None,
        flush: bool = True,
    ) -> Event | Failure:
        """Run the function and flush its rows, unless `flush` is false; any error that it raises is a failed attempt.

        Only the cancellation of the running task, and Ctrl-C, are no failed attempts.

        `original` is the event that the step emitted, for its compensation; `joined` reads the events of a join.
        """
        try:
            with contained(handler.name):
                with session.lent(to_step=True) if session else _NOT_LENT:
                    arguments = self._arguments(handler, event, session, saga_id, original, joined)
                    result = await self._wrapped(handler, event, arguments)
                failpoints.here("called", (type(event).__name__,))
                _check(handler, result)
                if flush and session:
                    await session.flush()
                    failpoints.here("step-written", (type(event).__name__,))
        except Exception as error:  # noqa: BLE001 -- the one place where a step's error becomes a failure: retried, or given up
            return Failure(error)
        return result

    async def _wrapped(self, handler: Step | Compensation, event: Event, arguments: dict[str, Any]) -> Event:
        if not self._middleware:
            return await handler.function(**arguments)

        async def call(depth: int) -> Event:
            if depth == len(self._middleware):
                return await handler.function(**arguments)
            return await self._middleware[depth](lambda: call(depth + 1), handler, event)

        return await call(0)

    def _arguments(
        self,
        handler: Step | Compensation,
        event: Event,
        session: StepSession | None,
        saga_id: str,
        original: Original | None,
        joined: Joining | None,
    ) -> dict[str, Any]:
        signature = handler.signature
        arguments: dict[str, Any] = {signature.event: event} if joined is None else dict(joined())
        if signature.session:
            arguments[signature.session] = session
        step = handler if isinstance(handler, Step) else handler.of
        if signature.key:
            arguments[signature.key] = IdempotencyKey(f"{step.saga.name}:{saga_id}:{step.name}")
        if signature.original:
            arguments[signature.original] = original.read(step.name, step.success) if original else None
        for name, kind in signature.resources.items():
            arguments[name] = self._resources[kind]
        return arguments


def _check(handler: Step | Compensation, result: object) -> None:
    if type(result) not in handler.signature.emits:
        declared = ", ".join(event.__name__ for event in handler.signature.emits)
        # Not its content: it may be an event with personal data.
        returned = "None" if result is None else f"a {type(result).__name__}"
        raise StepError(f"{handler.name} returned {returned}; it declares {declared}: return one of these")
