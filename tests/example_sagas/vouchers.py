"""A second saga of the trip's three services: a voucher sets aside a night, a seat (outside, external), and is sent.

A voucher may be booked with a trip, under the trip's own id: two sagas of different types have one id.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from tests.example_sagas.travel import QUICK, Script, services, write
from toolkit import Event, IdempotencyKey, Participant, Refusal, Saga, SagaId, Service


class VoucherRequested(Event, owner="agency"):
    voucher_id: SagaId


class NightSetAside(Event, owner="hotel"):
    voucher_id: SagaId


class NightRefused(Refusal, owner="hotel"):
    voucher_id: SagaId


class NightFreed(Event, owner="hotel"):
    voucher_id: SagaId
    reason: str = ""


class SeatHeld(Event, owner="flight"):
    voucher_id: SagaId


class SeatRefused(Refusal, owner="flight"):
    voucher_id: SagaId


class SeatFreed(Event, owner="flight"):
    voucher_id: SagaId
    reason: str = ""


class VoucherSent(Event, owner="desk", optional=True):
    voucher_id: SagaId


class VoucherRefused(Refusal, owner="desk"):
    voucher_id: SagaId


class VoucherFailed(Event, owner="desk", optional=True):
    voucher_id: SagaId
    reason: str = ""


voucher_saga = Saga(
    name="voucher",
    id_field="voucher_id",
    starts_with=VoucherRequested,
    completes_with=VoucherSent,
    fails_with=VoucherFailed,
)


def services_of_both(script: Script) -> list[Service]:
    """Return the three services, each with a part in both sagas, which follow this script."""
    parts = {"hotel": _hotel, "flight": _flight, "desk": _desk}
    found = []
    for service in services(script):
        assert service.tables is not None
        participant = parts[service.name](service.tables.tables["effects"])
        found.append(replace(service, participants=[*service.participants, participant]))
    return found


def _hotel(effects: Table) -> Participant:
    hotel = Participant("hotel", saga=voucher_saga, retry=QUICK)

    @hotel.step(timeout=timedelta(minutes=1))
    async def set_night_aside(
        event: VoucherRequested, session: AsyncSession, script: Script
    ) -> NightSetAside | NightRefused:
        await write(session, effects, event.voucher_id, "night set aside")
        if await script.play("set_night_aside", event.voucher_id):
            return NightRefused(voucher_id=event.voucher_id, reason="no night")
        return NightSetAside(voucher_id=event.voucher_id)

    @hotel.compensation(of=set_night_aside)
    async def free_night(event: SeatRefused | SeatFreed, session: AsyncSession, script: Script) -> NightFreed:
        await write(session, effects, event.voucher_id, "night freed")
        await script.play("free_night", event.voucher_id)
        return NightFreed(voucher_id=event.voucher_id, reason=event.reason)

    return hotel


def _flight(effects: Table) -> Participant:
    flight = Participant("flight", saga=voucher_saga, retry=QUICK)

    @flight.step(timeout=timedelta(minutes=1), external=True)
    async def hold_seat(
        event: NightSetAside, session: AsyncSession, key: IdempotencyKey, script: Script
    ) -> SeatHeld | SeatRefused:
        if await script.play("hold_seat", event.voucher_id):
            return SeatRefused(voucher_id=event.voucher_id, reason="no seat")
        script.booked.add(key)
        await write(session, effects, event.voucher_id, "seat held")
        return SeatHeld(voucher_id=event.voucher_id)

    @flight.compensation(of=hold_seat)
    async def free_seat(
        event: VoucherRefused, original: SeatHeld | None, session: AsyncSession, key: IdempotencyKey, script: Script
    ) -> SeatFreed:
        await script.play("free_seat", event.voucher_id)
        script.booked.discard(key)
        await write(session, effects, event.voucher_id, "seat freed" if original else "seat voided")
        return SeatFreed(voucher_id=event.voucher_id, reason=event.reason)

    return flight


def _desk(effects: Table) -> Participant:
    desk = Participant("desk", saga=voucher_saga, retry=QUICK)

    @desk.step()
    async def send_voucher(event: SeatHeld, session: AsyncSession, script: Script) -> VoucherSent | VoucherRefused:
        if await script.play("send_voucher", event.voucher_id):
            return VoucherRefused(voucher_id=event.voucher_id, reason="no address")
        await write(session, effects, event.voucher_id, "voucher sent")
        return VoucherSent(voucher_id=event.voucher_id)

    @desk.step()
    async def regret(event: NightRefused | NightFreed, session: AsyncSession, script: Script) -> VoucherFailed:
        await script.play("regret", event.voucher_id)
        await write(session, effects, event.voucher_id, "regretted")
        return VoucherFailed(voucher_id=event.voucher_id, reason=event.reason)

    return desk
