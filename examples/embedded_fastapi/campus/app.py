"""The campus's service, which the application in `web.py` embeds."""

from __future__ import annotations

from examples.embedded_fastapi.campus.models import metadata, seed_courses
from examples.embedded_fastapi.campus.steps import campus
from examples.embedded_fastapi.events import enrolment_saga
from toolkit import Service

app = Service(name="campus", participants=[campus], starts=[enrolment_saga], tables=metadata, seed=seed_courses)
