"""A program answers a step that waits, and reads who decided."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.example_sagas.approval import Approved, Declined, PriceQuoted, PurchaseWanted, purchase_saga, services
from tests.example_sagas.travel import Script
from toolkit import Answer, SagaId, Settings
from toolkit.client import SagaClient, connect
from toolkit.declaration.events import SagaState
from toolkit.errors import InvalidAnswerError

SOON = timedelta(seconds=30)


class Shrugged(Answer, owner="officer"):
    purchase_id: SagaId


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[SagaClient]:
    settings = Settings(broker_url="embedded", data_dir=tmp_path, relay_poll=timedelta(milliseconds=100))
    async with connect(purchase_saga, services=services(Script()), settings=settings) as client:
        yield client


async def asked(client: SagaClient) -> None:
    await client.start(PurchaseWanted(purchase_id="desk-1"))

    async def is_asked() -> bool:
        entries = (await client.saga("desk-1")).timeline.entries
        return any(entry.event_type == PriceQuoted.__name__ for entry in entries)

    await eventually(is_asked)


async def test_a_program_answers_and_the_saga_goes_on(client: SagaClient) -> None:
    await asked(client)

    (outcome,) = await client.answer(Approved(purchase_id="desk-1"), by="ada@desk", reason="within the budget")
    timeline = await client.wait("desk-1", timeout=SOON)

    assert (outcome.service, outcome.outcome, outcome.decided_by) == ("desk", "answered", "ada@desk")
    assert timeline.state is SagaState.COMPLETED


async def test_a_second_answer_has_who_decided(client: SagaClient) -> None:
    await asked(client)
    await client.answer(Approved(purchase_id="desk-1"), by="ada@desk", reason="within the budget")

    (outcome,) = await client.answer(Declined(purchase_id="desk-1", why="dear"), by="bob@desk", reason="too dear")

    assert (outcome.is_refused, outcome.decided_with, outcome.decided_by) == (True, "Approved", "ada@desk")


async def test_an_answer_to_an_unknown_saga_has_no_outcome(client: SagaClient) -> None:
    assert await client.answer(Approved(purchase_id="dsek-1"), by="ada@desk", reason="fine") == []


async def test_an_answer_that_no_step_takes_is_refused(client: SagaClient) -> None:
    with pytest.raises(
        InvalidAnswerError, match="no service takes an answer 'Shrugged'; they take: Approved, Declined"
    ):
        await client.answer(Shrugged(purchase_id="desk-1"), by="ada@desk", reason="fine")
