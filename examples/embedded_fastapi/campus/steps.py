"""The campus in the enrolment saga: reserve a seat before the fee is charged, and release it if it is not."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.embedded_fastapi.campus.models import Course, Enrolment, Seat
from examples.embedded_fastapi.events import (
    CourseFull,
    EnrolmentRejected,
    EnrolmentRequested,
    FeeRefused,
    SeatReleased,
    SeatReserved,
    enrolment_saga,
)
from toolkit import Participant

campus = Participant("campus", saga=enrolment_saga)


@campus.step(timeout=timedelta(minutes=10))
async def reserve_seat(event: EnrolmentRequested, session: AsyncSession) -> SeatReserved | CourseFull:
    """Give the student a seat, or refuse if none is left."""
    # populate_existing: the session may hold a row from before another replica changed it.
    course = await session.get(Course, event.course, with_for_update=True, populate_existing=True)
    if course is None:
        return CourseFull(enrolment_id=event.enrolment_id, reason=f"there is no course {event.course}")
    if not course.seats:
        return CourseFull(enrolment_id=event.enrolment_id, reason=f"{event.course} is full")
    course.seats -= 1
    session.add(Seat(enrolment_id=event.enrolment_id, course=event.course))
    return SeatReserved(enrolment_id=event.enrolment_id, student=event.student, fee=event.fee)


@campus.compensation(of=reserve_seat)
async def release_seat(event: FeeRefused, session: AsyncSession) -> SeatReleased:
    """Give the seat to the next student."""
    seat = await session.get_one(Seat, event.enrolment_id)
    course = await session.get_one(Course, seat.course, with_for_update=True, populate_existing=True)
    course.seats += 1
    seat.is_released = True
    return SeatReleased(enrolment_id=event.enrolment_id, reason=event.reason)


@campus.step()
async def reject_enrolment(event: CourseFull | SeatReleased, session: AsyncSession) -> EnrolmentRejected:
    """Note on the enrolment why it came to nothing; one that a client outside started has no row."""
    if enrolment := await session.get(Enrolment, event.enrolment_id):
        enrolment.rejected_because = event.reason
    return EnrolmentRejected(enrolment_id=event.enrolment_id, reason=event.reason)
