"""The published language of the enrolment saga: every event on one page, with the service that owns it."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from toolkit import Event, Refusal, Saga, SagaId, Sensitive

#: The name of a course.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,32}$")]
#: Who enrols is personal data: it is masked wherever it is shown.
Student = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,32}$"), Sensitive]
#: Money in minor units (cents).
Amount = Annotated[int, Field(ge=0, le=10**9)]


class EnrolmentRequested(Event, owner="campus"):
    """A student has enrolled on the campus's page, and the enrolment is stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"enrolment_id": "enrolment-1", "student": "ADA", "course": "ALGEBRA", "fee": 12000}]
        }
    )

    enrolment_id: SagaId
    student: Student
    course: Name
    fee: Amount


class SeatReserved(Event, owner="campus"):
    """A seat in the course is the student's; billing charges the fee on this."""

    enrolment_id: SagaId
    student: Student
    fee: Amount


class CourseFull(Refusal, owner="campus"):
    """The course has no seat left, or there is no such course."""

    enrolment_id: SagaId


class SeatReleased(Event, owner="campus"):
    """The seat is free again."""

    enrolment_id: SagaId
    reason: str = ""


class FeeCharged(Event, owner="billing", optional=True):
    """The fee is charged: the saga has completed."""

    enrolment_id: SagaId


class FeeRefused(Refusal, owner="billing"):
    """The student's account does not cover the fee."""

    enrolment_id: SagaId


class EnrolmentRejected(Event, owner="campus", optional=True):
    """The student has no seat, and pays nothing: the saga has failed."""

    enrolment_id: SagaId
    reason: str = ""


enrolment_saga = Saga(
    name="enrolment",
    id_field="enrolment_id",
    starts_with=EnrolmentRequested,
    completes_with=FeeCharged,
    fails_with=EnrolmentRejected,
)
