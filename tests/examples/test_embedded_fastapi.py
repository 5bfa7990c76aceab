"""The campus's application over HTTP, with billing beside it over RabbitMQ, on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.embedded_fastapi.events import enrolment_saga
from tests.end_to_end.breakable import free_port
from tests.eventually import eventually
from tests.examples.processes import processes, sqlalchemy_url, sweep
from tests.servers import Server
from tests.service_databases import database_url
from toolkit import Settings
from toolkit.client import SagaClient, connect
from toolkit.declaration.events import SagaState

__all__ = ["database_url"]

TOKEN = "a-token-to-read-sagas"
SOON = timedelta(seconds=100)


class Campus:
    """The running application: its pages, and its sagas by the client."""

    def __init__(self, pages: httpx.AsyncClient, sagas: SagaClient) -> None:
        self.pages, self.sagas = pages, sagas

    async def enrol(self, course: str) -> dict[str, Any]:
        """Enrol on the page; return the answer once the saga has ended."""
        answer = await self.pages.post("/enrolments", json={"student": "ADA", "course": course})
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        await self.sagas.wait(found["enrolment_id"], timeout=SOON)
        return found


@pytest.fixture
async def campus(rabbitmq: Server, database_url: str, tmp_path: Path, prefix: str) -> AsyncIterator[Campus]:
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path, api_read_token=TOKEN)
    page, billing = free_port(), free_port()
    commands = (
        ("uvicorn", "examples.embedded_fastapi.campus.web:web", "--port", str(page)),
        ("toolkit.cli", "run", "examples.embedded_fastapi.billing.app:app"),
    )
    variables = {"CAMPUS_DATABASE_URL": sqlalchemy_url(database_url), "SAGA_API_READ_TOKEN": TOKEN}
    urls = {"campus": f"http://127.0.0.1:{page}/saga", "billing": f"http://127.0.0.1:{billing}"}
    async with (
        processes(settings, *commands, SAGA_HTTP_PORT=str(billing), **variables),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{page}", trust_env=False) as pages,
        connect(enrolment_saga, urls=urls, settings=settings) as sagas,
    ):
        for url in urls.values():
            await eventually(lambda url=url: is_ready(pages, url), within=100, what=url)
        yield Campus(pages, sagas)
    await sweep(settings, "campus", "billing")


async def is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_an_enrolment_completes_its_saga(campus: Campus) -> None:
    enrolled = await campus.enrol("ALGEBRA")
    stored = (await campus.pages.get(f"/enrolments/{enrolled['enrolment_id']}")).json()
    saga = (await campus.pages.get(enrolled["saga"], headers={"authorization": f"Bearer {TOKEN}"})).json()

    assert (stored["course"], stored["rejected_because"]) == ("ALGEBRA", None)
    assert (saga["entries"][0]["step"], saga["entries"][0]["to_state"]) == ("reserve_seat", "completed")
    assert (await campus.pages.get(enrolled["saga"])).status_code == 401


@pytest.mark.parametrize(("course", "reason"), [("FULL", "FULL is full"), ("SAILING", "the fee of 250000 is above")])
async def test_a_refused_enrolment_is_rejected(campus: Campus, course: str, reason: str) -> None:
    enrolled = await campus.enrol(course)

    report = await campus.sagas.saga(enrolled["enrolment_id"])
    stored = (await campus.pages.get(f"/enrolments/{enrolled['enrolment_id']}")).json()
    undone = {node.name for node in report.progress.nodes if str(node.status) == "undone"}
    assert report.timeline.state is SagaState.FAILED
    assert undone == ({"reserve_seat"} if course == "SAILING" else set())
    assert stored["rejected_because"].startswith(reason)


async def test_an_enrolment_in_no_course_starts_nothing(campus: Campus) -> None:
    answer = await campus.pages.post("/enrolments", json={"student": "ADA", "course": "NO-SUCH"})
    sagas = await campus.pages.get("/saga/sagas", headers={"authorization": f"Bearer {TOKEN}"})

    assert (answer.status_code, sagas.json()["sagas"]) == (404, [])
