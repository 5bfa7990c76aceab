"""A saga whose steps misbehave: each misbehaviour must fail its own attempt, and nothing else.

A dare has an id of its own, and fails: the misbehaving step refuses it, and no effect remains.
"""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import Column, MetaData, String, Table, delete, insert, text
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import Event, Participant, Refusal, RetryPolicy, Saga, SagaId

dare_tables = MetaData()
taken_dares = Table("taken_dare", dare_tables, Column("dare_id", String, primary_key=True))

#: More than the limit of a message, and less than a frame of the broker.
_LARGE = 300_000
#: Few: a misbehaviour fails each time, and a killing one interrupts all messages in hand of its service.
_FEW = RetryPolicy(attempts=3, first_delay=timedelta(milliseconds=200))


class Misbehaviour(StrEnum):
    """A step's misbehaviour."""

    CANCELLED = "lets CancelledError out"
    CANCELLED_OUTSIDE = "lets CancelledError out of an external step"
    TERMINATED = "ends its own database session"
    LARGE = "emits an event that is too large"
    UNLIKE = "emits an event that is another one in JSON"
    STRANGE = "emits another saga's id"
    KILLING = "kills its own process"


class DareOffered(Event, owner="dare"):
    """A step is dared to misbehave."""

    dare_id: SagaId
    misbehaviour: Misbehaviour


class DareTaken(Event, owner="inventory"):
    """The dare is on."""

    dare_id: SagaId
    misbehaviour: Misbehaviour
    weight: float = 1.0
    text: str = ""


class DareRefused(Refusal, owner="inventory"):
    """The dare is not taken."""

    dare_id: SagaId


class DareGivenUp(Event, owner="inventory"):
    """The dare is off again."""

    dare_id: SagaId


class DareDone(Event, owner="shipping", optional=True):
    """The dare is done: the saga ended well."""

    dare_id: SagaId


class DareFailed(Refusal, owner="shipping"):
    """The dare can't be done."""

    dare_id: SagaId


class DareForgotten(Event, owner="notification", optional=True):
    """The dare came to nothing: the saga ended failed."""

    dare_id: SagaId


dare_saga = Saga(
    name="dare",
    id_field="dare_id",
    starts_with=DareOffered,
    completes_with=DareDone,
    fails_with=DareForgotten,
)

taking = Participant("taking", saga=dare_saga, retry=_FEW)
doing = Participant("doing", saga=dare_saga, retry=_FEW)
forgetting = Participant("forgetting", saga=dare_saga)


@taking.step()
async def take_dare(event: DareOffered, session: AsyncSession) -> DareTaken | DareRefused:
    """Take the dare, and misbehave unless that needs an external step."""
    connection = await session.connection()
    await connection.execute(insert(taken_dares).values(dare_id=event.dare_id))
    taken = DareTaken(dare_id=event.dare_id, misbehaviour=event.misbehaviour)
    match event.misbehaviour:
        case Misbehaviour.CANCELLED:
            await _be_cancelled()
        case Misbehaviour.TERMINATED:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        case Misbehaviour.KILLING:
            os.kill(os.getpid(), signal.SIGKILL)
        case Misbehaviour.LARGE:
            taken = taken.model_copy(update={"text": "x" * _LARGE})
        case Misbehaviour.UNLIKE:
            taken = taken.model_copy(update={"weight": float("nan")})
        case Misbehaviour.STRANGE:
            taken = taken.model_copy(update={"dare_id": f"{event.dare_id}-other"})
    return taken


@taking.compensation(of=take_dare)
async def give_dare_up(event: DareFailed, session: AsyncSession) -> DareGivenUp:
    """Delete the dare."""
    await (await session.connection()).execute(delete(taken_dares).where(taken_dares.c.dare_id == event.dare_id))
    return DareGivenUp(dare_id=event.dare_id)


@doing.step(external=True)
async def do_dare(event: DareTaken) -> DareDone | DareFailed:
    """Do the dare."""
    if event.misbehaviour is Misbehaviour.CANCELLED_OUTSIDE:
        await _be_cancelled()
    return DareDone(dare_id=event.dare_id)


@forgetting.step()
async def forget_dare(event: DareRefused | DareGivenUp) -> DareForgotten:
    """Note that the dare came to nothing."""
    return DareForgotten(dare_id=event.dare_id)


async def _be_cancelled() -> None:
    """Await a cancelled task: it raises CancelledError, though this task itself is not cancelled."""
    other = asyncio.create_task(asyncio.sleep(60))
    other.cancel()
    await other
