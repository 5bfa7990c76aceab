"""Billing in the enrolment saga: the last step, which nothing undoes."""

from __future__ import annotations

from examples.embedded_fastapi.events import FeeCharged, FeeRefused, SeatReserved, enrolment_saga
from toolkit import Participant

#: What a student's account covers, in minor units.
MOST = 100_000

billing = Participant("billing", saga=enrolment_saga)


@billing.step()
async def charge_fee(event: SeatReserved) -> FeeCharged | FeeRefused:
    """Charge the fee, or refuse if the student's account does not cover it."""
    if event.fee > MOST:
        return FeeRefused(enrolment_id=event.enrolment_id, reason=f"the fee of {event.fee} is above {MOST}")
    return FeeCharged(enrolment_id=event.enrolment_id)
