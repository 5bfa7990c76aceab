"""Call a step's or a compensation's function with what its signature asks for, and hold it to what it declared."""

from __future__ import annotations

import traceback
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit import failpoints
from toolkit.declaration.encoding import Original
from toolkit.declaration.events import Event, IdempotencyKey
from toolkit.declaration.participant import Compensation, Step
from toolkit.errors import ContentionError, DatabaseUnavailableError, StepError, describe
from toolkit.foreign_code.containment import contained
from toolkit.foreign_code.time_limits import LONGEST_STEP, at_most
from toolkit.persistence.database_errors import breaks_off, is_contention, is_unfit
from toolkit.persistence.driver_errors import without_values
from toolkit.persistence.step_session import StepSession

#: A traceback in a dead letter is for reading; its last frames say what happened.
_TRACEBACK_CHARS = 8_000


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that raised, or was cut off."""

    error: Exception
    was_cut: bool = False

    def __post_init__(self) -> None:
        without_values(self.error)  # a step may have spoken to its database past SQLAlchemy, or to another one

    def traceback(self) -> str:
        """Return the last part of the traceback."""
        return "".join(traceback.format_exception(self.error))[-_TRACEBACK_CHARS:]


def blame(failure: Failure, handler: Step | Compensation) -> None:
    """Return if the attempt failed by itself.

    Raises:
        ContentionError: another transaction was in its way.
        DatabaseUnavailableError: its connection broke, or the server could not serve it.
    """
    if is_contention(failure.error):
        raise ContentionError(f"{handler.name} met another transaction") from failure.error
    if breaks_off(failure.error) or is_unfit(failure.error):
        told = f"the database broke off under {handler.name}: {describe(failure.error)}"
        raise DatabaseUnavailableError(told) from failure.error


async def bounded(
    call: Coroutine[Any, Any, Event | Failure], handler: Step | Compensation, session: StepSession
) -> Event | Failure:
    """Run a function that holds the transaction of its batch, and cut it off when it takes too long."""
    try:
        async with at_most(LONGEST_STEP, unless=lambda: session.is_busy):
            return await call
    except TimeoutError:
        told = f"{handler.name} took more than {LONGEST_STEP} seconds, and all others wait: make it external"
        return Failure(StepError(told), was_cut=True)


class Invocation:
    """Knows the resources that the service provides to its steps."""

    def __init__(self, resources: Mapping[type, Any]) -> None:
        self._resources = resources

    async def attempt(
        self,
        handler: Step | Compensation,
        event: Event,
        session: StepSession,
        *,
        saga_id: str,
        original: Original | None,
        flush: bool = True,
    ) -> Event | Failure:
        """Run the function and flush what it wrote, unless somebody else does; whatever it raises is a failed attempt.

        Only the cancellation of the task that runs it is none, and Ctrl-C.

        `original` is the event that the step emitted, for its compensation.
        """
        try:
            with contained(handler.name):
                with session.lent():
                    result = await handler.function(**self._arguments(handler, event, session, saga_id, original))
                failpoints.here("called", (type(event).__name__,))
                _check(handler, result)
                if flush:
                    await session.flush()
                    failpoints.here("step-written", (type(event).__name__,))
        except Exception as error:  # noqa: BLE001 -- the one place where a step's error becomes a verdict: retry or give up
            return Failure(error)
        return result

    def _arguments(
        self, handler: Step | Compensation, event: Event, session: StepSession, saga_id: str, original: Original | None
    ) -> dict[str, Any]:
        signature = handler.signature
        step = handler if isinstance(handler, Step) else handler.of
        arguments: dict[str, Any] = {signature.event: event}
        if signature.session:
            arguments[signature.session] = session
        if signature.key:
            arguments[signature.key] = IdempotencyKey(f"{step.saga.name}:{saga_id}:{step.name}")
        if signature.original:
            arguments[signature.original] = original.read(step.name, step.success) if original else None
        return arguments | {name: self._resources[kind] for name, kind in signature.resources.items()}


def _check(handler: Step | Compensation, result: object) -> None:
    if type(result) not in handler.signature.emits:
        declared = ", ".join(event.__name__ for event in handler.signature.emits)
        # Not what is in it: it may be an event of people's.
        returned = "None" if result is None else f"a {type(result).__name__}"
        raise StepError(f"{handler.name} returned {returned}; it declares {declared}: return one of these")
