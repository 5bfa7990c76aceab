"""The steps that a service ever declared on this database: a step that is removed while its sagas run is detected.

A step's name is a key of the log. A renamed step finds no entries: its compensation would fence it instead of undoing
it, and a late event would run it once more. The table is tiny, so that a start needs no search of the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Select, String, Table, and_, bindparam, delete, exists, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.contract import Contract
from toolkit.declaration.events import SagaState
from toolkit.declaration.service import Service
from toolkit.persistence.saga_log import saga_log
from toolkit.persistence.schema import insert_into, metadata
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.rows import Row

known_steps = Table(
    "saga_known_steps",
    metadata,
    Column("service", String, primary_key=True),
    Column("saga_type", String, primary_key=True),
    Column("step", String, primary_key=True),
)

#: The count of a step's unfinished sagas stops here: it matters only that there are some.
MOST_COUNTED = 1_000

#: How many rows one statement searches: a second or two.
_RANGE = 200_000

_KEY = ("service", "saga_type", "step")
_IN_RANGE = (saga_log.c.id >= bindparam("from_id"), saga_log.c.id < bindparam("to_id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class UndeclaredStep(Row):
    """A step that the log holds and the service does not declare; `unfinished` sagas of it are counted up to 1,000."""

    saga_type: str
    step: str
    unfinished: int

    def __str__(self) -> str:
        some = f"{MOST_COUNTED} or more" if self.unfinished == MOST_COUNTED else str(self.unfinished)
        return f"{self.saga_type}/{self.step} ({some} unfinished)"


async def undeclared(connection: AsyncConnection, service: Service) -> list[tuple[str, UndeclaredStep]]:
    """Record the declared steps, and return the former ones that are still in the log, each with its service."""
    declared = {(step.saga.name, step.name) for step in service.steps}
    gates = {(each.saga.name, each.name) for each in service.compensations if each.signature.is_join}
    known = await _known(connection)
    # A coordinator declares no steps: each saga's plan names its own.
    gone = [key for key in known if key[1:] not in declared | gates and key[1] not in service.coordinated]
    found = [await _undeclared(connection, *key[1:]) for key in gone]
    await _forget(connection, [key for key, each in zip(gone, found, strict=True) if each is None])
    new = [dict(zip(_KEY, (service.name, *each), strict=True)) for each in sorted(declared)]
    if new:
        await connection.execute(insert_into(known_steps, connection).on_conflict_do_nothing(), new)
    return [(key[0], each) for key, each in zip(gone, found, strict=True) if each]


async def former(connection: AsyncConnection, contract: Contract) -> list[UndeclaredStep]:
    """Return this service's recorded steps that are still in the log and not declared; change nothing."""
    declared = {(each.saga, each.name) for each in contract.handlers if each.kind == "step"}
    noted = select(known_steps.c.saga_type, known_steps.c.step).where(known_steps.c.service == contract.service)
    rows = (await connection.execute(noted.order_by(*known_steps.c))).all()
    gone = [row for row in rows if tuple(row) not in declared and row.saga_type not in contract.coordinates]
    found = [await _undeclared(connection, row.saga_type, row.step) for row in gone]
    return [each for each in found if each]


async def _known(connection: AsyncConnection) -> list[tuple[str, str, str]]:
    """Return the recorded steps; if there are none yet, record those of the existing log, by one search of it."""
    noted = (await connection.execute(select(*known_steps.c).order_by(*known_steps.c))).all()
    if not noted:
        has_moved = saga_log.c.to_state != StepState.GATHERING.value  # a compensation that joins only gathers
        logged = select(*(saga_log.c[name] for name in _KEY)).where(*_IN_RANGE, has_moved).distinct()
        found = {tuple(row) async for each in _ranges(connection) for row in await connection.execute(logged, each)}
        if found:
            insertion = insert_into(known_steps, connection).on_conflict_do_nothing()
            await connection.execute(insertion, [dict(zip(_KEY, key, strict=True)) for key in sorted(found)])
        return [(str(service), str(saga_type), str(step)) for service, saga_type, step in sorted(found)]
    return [(row.service, row.saga_type, row.step) for row in noted]


async def _ranges(connection: AsyncConnection) -> AsyncIterator[dict[str, int]]:
    """Yield the log in ranges of ids: a search of all of it at once would time out as an outage."""
    first, last = (await connection.execute(select(func.min(saga_log.c.id), func.max(saga_log.c.id)))).one()
    for start in range(first or 0, (last or -1) + 1, _RANGE):
        yield {"from_id": start, "to_id": start + _RANGE}


async def _undeclared(connection: AsyncConnection, saga_type: str, step: str) -> UndeclaredStep | None:
    """Return how many of a step's sagas are unfinished; None where all its entries are pruned."""
    which = {"of_type": saga_type, "of_step": step}
    unfinished = 0
    async for each in _ranges(connection):
        unfinished += int(await connection.scalar(_UNFINISHED, which | each) or 0)
        if unfinished >= MOST_COUNTED:
            break
    if not unfinished and not await connection.scalar(_ANY, which):
        return None
    return UndeclaredStep(saga_type=saga_type, step=step, unfinished=min(unfinished, MOST_COUNTED))


async def _forget(connection: AsyncConnection, keys: Sequence[tuple[str, str, str]]) -> None:
    for key in keys:
        is_one = and_(*(known_steps.c[name] == value for name, value in zip(_KEY, key, strict=True)))
        await connection.execute(delete(known_steps).where(is_one))


def _unfinished() -> Select[Any]:
    """Count a step's last entries in sagas that have not ended; built once."""
    later, other = saga_log.alias(), saga_log.alias()
    of_saga = and_(other.c.saga_id == saga_log.c.saga_id, other.c.saga_type == saga_log.c.saga_type)
    is_end = or_(
        other.c.saga_state.in_([SagaState.COMPLETED.value, SagaState.FAILED.value]),
        and_(other.c.to_state == Note.ENDED.value, other.c.position.is_(None)),
    )
    has_moved = exists().where(
        later.c.saga_id == saga_log.c.saga_id,
        later.c.saga_type == saga_log.c.saga_type,
        later.c.step == saga_log.c.step,
        later.c.position > saga_log.c.position,
    )
    last_entries = (
        *_IN_RANGE,
        *_of_step(),
        saga_log.c.position.is_not(None),
        ~has_moved,
        ~exists().where(of_saga, is_end),
    )
    return select(func.count()).select_from(select(saga_log.c.id).where(*last_entries).limit(MOST_COUNTED).subquery())


def _of_step() -> tuple[Any, ...]:
    return saga_log.c.saga_type == bindparam("of_type"), saga_log.c.step == bindparam("of_step")


_UNFINISHED = _unfinished()
_ANY = select(literal(1)).where(exists().where(*_of_step()))
