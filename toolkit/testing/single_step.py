"""A step or a compensation alone: its function and its arguments, as the runtime calls it, without any service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from sqlalchemy import MetaData

from toolkit.configuration.settings import LARGEST_MESSAGE
from toolkit.declaration.encoding import Original, encode, own_id, survived
from toolkit.declaration.events import Event, Refusal
from toolkit.declaration.participant import Compensation, Participant, Step
from toolkit.declaration.service import Seed
from toolkit.declaration.signature import Function
from toolkit.errors import WorldError
from toolkit.persistence.database import Database
from toolkit.persistence.step_session import StepSession
from toolkit.runtime.invocation import Failure, Invocation
from toolkit.testing.memory import memory_directory


async def run_step(
    function: Function,
    *events: Event,
    session: StepSession | None = None,
    original: Event | None = None,
    provides: Iterable[Any] = (),
    participant: Participant | None = None,
) -> Event:
    """Run the function of a step or a compensation, and return the event that it would emit; a refusal is undone.

    - `events`: one for each event parameter, in any order.
    - `session`: of `step_session`; the function can't commit it, as in a service.
    - `original`: for a compensation, the event that its step emitted.
    - `provides`: the objects that the function takes, each by its type or a class above it.
    - `participant`: the one that declares the function, where no name of the function's module has it.

    Raises:
        WorldError: an argument is missing.
        StepError: the function returned another event than it declares, or one that no other service could read.
        Exception: whatever the function raised.
    """
    handler = _handler_of(function, participant)
    slots, needed = _by_slot(handler, events), _needed(handler, session)
    first = next(iter(slots.values()))
    saga_id, before = own_id(first, handler.saga) or "", _original(handler, original)
    invocation = Invocation(_resources(handler, provides))
    savepoint = await needed.begin_nested() if needed else None
    joined = (lambda: slots) if len(slots) > 1 else None
    result = await invocation.attempt(handler, first, needed, saga_id=saga_id, original=before, joined=joined)
    if savepoint and savepoint.is_active:
        await (savepoint.rollback() if isinstance(result, Failure | Refusal) else savepoint.commit())
    if isinstance(result, Failure):
        raise result.error
    encode(result, saga=handler.saga, saga_id=saga_id, most=LARGEST_MESSAGE)
    return result


@asynccontextmanager
async def step_session(
    tables: MetaData | None = None, *, seed: Seed | None = None, url: str | None = None
) -> AsyncIterator[StepSession]:
    """Open a session for a step alone, on a new database with these tables and the rows of the seed.

    `url`: of another database, as `postgresql://…`; its rows are those that it has.
    """
    with ExitStack() as stack:
        place = url or f"sqlite:///{stack.enter_context(memory_directory())}/step.db"
        database = Database(place)
        try:
            await database.create_tables(*([tables] if tables is not None else []))
            async with database.session() as session:
                if seed:
                    await seed(session)
                    await session.flush()
                yield session
                await session.rollback()
        finally:
            await database.close()


def _handler_of(function: Function, participant: Participant | None) -> Step | Compensation:
    known = getattr(function, "__globals__", {}).values() if participant is None else [participant]
    for each in known:
        if isinstance(each, Participant):
            handlers: list[Step | Compensation] = [*each.steps, *each.compensations]
            for handler in handlers:
                if handler.function is function:
                    return handler
    name = getattr(function, "__name__", repr(function))
    raise WorldError(f"{name} is no step or compensation of a participant in its module: pass participant=…")


def _by_slot(handler: Step | Compensation, events: Sequence[Event]) -> dict[str, Event]:
    """Return the event for each event parameter."""
    found = {name: each for name, kinds in handler.slots.items() for each in events if type(each) in kinds}
    for name, kinds in handler.slots.items():
        if name not in found:
            one_of = " or ".join(kind.__name__ for kind in kinds)
            raise WorldError(f"{handler.name} has no event for {name!r}: pass a {one_of}")
    if extra := [type(each).__name__ for each in events if each not in found.values()]:
        raise WorldError(f"{handler.name} takes no {', '.join(extra)}: leave it out")
    return found


def _needed(handler: Step | Compensation, session: StepSession | None) -> StepSession | None:
    if not handler.signature.session:
        return None
    if not isinstance(session, StepSession):
        raise WorldError(
            f"{handler.name} takes a session: open one with `async with step_session(tables) as session`, "
            "and pass session=session"
        )
    return session


def _original(handler: Step | Compensation, original: Event | None) -> Original | None:
    if isinstance(handler, Step) or not handler.signature.original:
        return None
    if original is None and not handler.of.external:
        raise WorldError(f"{handler.name} takes the event that {handler.of.name} emitted: pass original=…")
    if original is None:
        return None
    return Original(survived(original).decode(), type(original).__name__, type(original).__version__)


def _resources(handler: Step | Compensation, provides: Iterable[Any]) -> dict[type, Any]:
    offered = list(provides)
    found = {}
    for name, kind in handler.signature.resources.items():
        fitting = [each for each in offered if isinstance(each, kind)] or offered[:1] * (len(offered) == 1)
        if not fitting:
            raise WorldError(f"{handler.name} takes a {kind.__name__} as {name!r}: pass one in provides=[…]")
        found[kind] = fitting[0]
    return found
