"""The campus's tables: the courses, their seats, and the enrolments that its page stores."""

import json
from pathlib import Path

from sqlalchemy import CheckConstraint, MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from toolkit.persistence.schema import insert_into

metadata = MetaData()

#: The courses, their seats and their fees.
COURSES_FILE = Path(__file__).with_name("courses.json")


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of the campus's tables."""


class Course(Base, table=True):
    """A course, with the seats that are left and its fee in minor units."""

    __table_args__ = (CheckConstraint("seats >= 0", name="course_seats_are_not_negative"),)

    name: str = Field(primary_key=True)
    seats: int
    fee: int


class Enrolment(Base, table=True):
    """What a student has asked for; the endpoint stores it together with the saga's start."""

    id: str = Field(primary_key=True)
    student: str
    course: str
    rejected_because: str | None = None


class Seat(Base, table=True):
    """A student's seat in a course, until it is released."""

    enrolment_id: str = Field(primary_key=True)
    course: str = Field(foreign_key="course.name")
    is_released: bool = False


async def seed_courses(session: AsyncSession) -> None:
    """Insert the courses of `courses.json` that are missing; replicas may do so concurrently."""
    connection = await session.connection()
    # Sorted: two replicas that insert the same rows in opposite orders would deadlock.
    courses = sorted(json.loads(COURSES_FILE.read_text()), key=lambda each: str(each["name"]))
    await connection.execute(insert_into(metadata.tables["course"], connection).on_conflict_do_nothing(), courses)
