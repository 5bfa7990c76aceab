"""A step alone gets its arguments as from the runtime, and returns its event or its refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from tests.example_sagas import parcels
from tests.example_sagas.parcels import (
    FULL,
    Carrier,
    Count,
    NotAtHome,
    ParcelCalledBack,
    ParcelOrdered,
    ParcelPacked,
    ParcelRejected,
    ParcelSent,
    ParcelUnpacked,
    Shelf,
    ShelfEmpty,
    parcel_saga,
)
from toolkit import Participant
from toolkit.errors import StepError, WorldError
from toolkit.persistence.step_session import StepSession
from toolkit.testing import Outcome, run_step, step_session

(shelf,), (carrier,), (desk,) = (each.participants for each in parcels.services())
pack, unpack = shelf.steps[0].function, shelf.compensations[0].function
send, call_back = carrier.steps[0].function, carrier.compensations[0].function
PACKED = ParcelPacked(parcel_id="p-1", town="Talheim")


@pytest.fixture
async def session() -> AsyncIterator[StepSession]:
    async with step_session(parcels.tables, seed=parcels.fill) as session:
        yield session


async def test_a_step_returns_its_event(session: StepSession) -> None:
    event = await run_step(pack, ParcelOrdered(parcel_id="p-1"), session=session, provides=[Count()], participant=shelf)

    assert event == PACKED
    assert (await session.exec(select(Shelf.parcels))).all() == [FULL - 1]


async def test_a_compensation_gets_the_original_event(session: StepSession) -> None:
    refused = ParcelRejected(parcel_id="p-1", reason="the road is closed")

    event = await run_step(unpack, refused, session=session, original=PACKED, provides=[Count()], participant=shelf)

    assert event == ParcelUnpacked(parcel_id="p-1", reason="the road is closed")


async def test_an_external_step_gets_its_key_and_resource() -> None:
    outside = Carrier()

    event = await run_step(send, PACKED, provides=[outside], participant=carrier)

    assert event == ParcelSent(parcel_id="p-1", town="Talheim")
    assert outside.standing == {"parcel:p-1:send": True}


async def test_a_refusal_of_a_step_is_returned() -> None:
    outside = Carrier()
    outside.plan("send", Outcome.REFUSES)

    event = await run_step(send, PACKED, provides=[outside], participant=carrier)

    assert event == ParcelRejected(parcel_id="p-1", reason="the road is closed")


async def test_an_unknown_outcome_is_undone_without_original() -> None:
    outside, away = Carrier(), NotAtHome(parcel_id="p-1", reason="away")

    event = await run_step(call_back, away, provides=[outside], participant=carrier)

    assert isinstance(event, ParcelCalledBack)
    assert await outside.send("parcel:p-1:send") is False


depot = Participant("shelf", saga=parcel_saga)


@depot.step()
async def pack_and_commit(event: ParcelOrdered, session: AsyncSession) -> ParcelPacked:
    await session.commit()
    return PACKED


@depot.step()
async def pack_another(event: ParcelOrdered) -> ParcelPacked:
    return ParcelPacked(parcel_id="p-2")


@depot.step()
async def pack_wrongly(event: ParcelOrdered) -> ParcelPacked:
    return ShelfEmpty(parcel_id="p-1", reason="returned by mistake")  # type: ignore[return-value]


@depot.step()
async def write_and_refuse(event: ParcelOrdered, session: AsyncSession) -> ParcelPacked | ShelfEmpty:
    session.add(Shelf(name="B", parcels=1))
    return ShelfEmpty(parcel_id="p-1", reason="full")


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (pack_and_commit, "a step never commits"),
        (pack_another, "belongs to the saga 'p-2'"),
        (pack_wrongly, "returned a ShelfEmpty; it declares ParcelPacked"),
    ],
)
async def test_what_a_service_would_reject_is_an_error(step, fault: str, session: StepSession) -> None:
    with pytest.raises(StepError, match=fault):
        await run_step(step, ParcelOrdered(parcel_id="p-1"), session=session)


async def test_a_refusal_leaves_no_row_behind(session: StepSession) -> None:
    event = await run_step(write_and_refuse, ParcelOrdered(parcel_id="p-1"), session=session)

    assert isinstance(event, ShelfEmpty)
    assert (await session.exec(select(Shelf.name))).all() == ["A"]


async def test_an_error_of_a_step_is_raised(session: StepSession) -> None:
    async with step_session(MetaData()) as empty:
        with pytest.raises(Exception, match="no such table: shelf"):
            await run_step(pack, ParcelOrdered(parcel_id="p-1"), session=empty, provides=[Count()], participant=shelf)


async def test_a_missing_argument_names_the_cure(session: StepSession) -> None:
    order = ParcelOrdered(parcel_id="p-1")
    with pytest.raises(WorldError, match=r"pack is no step or compensation .*pass participant="):
        await run_step(pack, order)
    with pytest.raises(WorldError, match=r"pack takes a session: open one with .*step_session\(tables\)"):
        await run_step(pack, order, provides=[Count()], participant=shelf)
    with pytest.raises(WorldError, match=r"send has no event for 'event': pass a ParcelPacked"):
        await run_step(send, order, participant=carrier)
    with pytest.raises(WorldError, match=r"send takes no ParcelOrdered: leave it out"):
        await run_step(send, PACKED, order, participant=carrier)
    with pytest.raises(WorldError, match=r"send takes a Carrier as 'carrier': pass one in provides"):
        await run_step(send, PACKED, participant=carrier)
    with pytest.raises(WorldError, match=r"unpack takes the event that pack emitted: pass original="):
        await run_step(unpack, ParcelCalledBack(parcel_id="p-1"), participant=shelf, session=session)
