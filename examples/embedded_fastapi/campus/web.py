"""The campus's page: `uvicorn examples.embedded_fastapi.campus.web:web`.

An enrolment and the start of its saga are one transaction, on the application's own engine.
"""

from __future__ import annotations

import os
from uuid import uuid4

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from examples.embedded_fastapi.campus.app import app as campus
from examples.embedded_fastapi.campus.models import Course, Enrolment
from examples.embedded_fastapi.events import EnrolmentRequested, Name, Student
from toolkit import start
from toolkit.embedding import saga_api, saga_lifespan

engine = create_async_engine(os.environ.get("CAMPUS_DATABASE_URL", "sqlite+aiosqlite:///campus.db"))

web = FastAPI(title="Campus", lifespan=saga_lifespan(campus, engine=engine))
web.mount("/saga", saga_api(campus))


class Wish(BaseModel):
    """What a student fills in."""

    student: Student
    course: Name


class Accepted(BaseModel):
    """An enrolment under way, and where its saga is to be read."""

    enrolment_id: str
    saga: str


@web.post("/enrolments", status_code=202)
async def enrol(wish: Wish) -> Accepted:
    """Store an enrolment, and start its saga with the same commit."""
    enrolment = Enrolment(id=f"enrolment-{uuid4().hex[:12]}", student=wish.student, course=wish.course)
    async with AsyncSession(engine) as session, session.begin():
        course = await session.get(Course, wish.course)
        if course is None:
            raise HTTPException(404, f"there is no course {wish.course}")
        session.add(enrolment)
        event = EnrolmentRequested(enrolment_id=enrolment.id, student=wish.student, course=wish.course, fee=course.fee)
        saga_id = await start(session, event)
    return Accepted(enrolment_id=saga_id, saga=f"/saga/sagas/{saga_id}")


@web.get("/enrolments/{enrolment_id}")
async def enrolment(enrolment_id: str) -> Enrolment:
    """Return an enrolment of the campus's own table."""
    async with AsyncSession(engine) as session:
        if found := await session.get(Enrolment, enrolment_id):
            return found
    raise HTTPException(404, f"there is no enrolment {enrolment_id}")
