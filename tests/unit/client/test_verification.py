"""Verification of a saga that waits for an answer: no entry emits the answer, and that violates nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.conformance.world import message
from tests.eventually import eventually
from tests.example_sagas.approval import Approved, PurchaseApproved, PurchaseWanted, services
from tests.example_sagas.travel import Script
from toolkit import Event, Settings
from toolkit.client import DatabaseClient
from toolkit.client.saga_report import timeline_of
from toolkit.client.verification import VerificationReport, verify
from toolkit.declaration.contract import Contract
from toolkit.ids import new_id
from toolkit.transport.embedded import Embedded

SAGA = "purchase", "desk-1"
SERVICES = services(Script())


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with Embedded(SERVICES, Settings(data_dir=tmp_path, broker_url="embedded")) as embedded:
        yield embedded


@pytest.fixture
async def clients(running: Embedded, tmp_path: Path) -> AsyncIterator[list[DatabaseClient]]:
    """The services' databases, and their declarations."""
    opened = [
        DatabaseClient(each.name, f"sqlite:///{tmp_path}/{each.name}.db", contract=partial(Contract.of, each))
        for each in SERVICES
    ]
    yield opened
    for client in opened:
        await client.close()


async def test_an_answer_needs_no_entry_that_emits_it(running: Embedded, clients: list[DatabaseClient]) -> None:
    await sent(running, PurchaseWanted(purchase_id="desk-1"))
    await sent(running, Approved(purchase_id="desk-1"), event_id=new_id())

    report = await verified(clients)

    assert (report.sagas, report.violations) == (1, [])


async def test_a_forged_event_is_found_beside_an_answer(running: Embedded, clients: list[DatabaseClient]) -> None:
    await sent(running, PurchaseWanted(purchase_id="desk-1"))
    await sent(running, PurchaseApproved(purchase_id="desk-1"), event_id=new_id())
    await sent(running, Approved(purchase_id="desk-1"), event_id=new_id())

    report = await verified(clients)

    assert [each.text for each in report.violations if each.invariant == "every event has its cause"] == [
        "order took a PurchaseApproved that no entry emitted"
    ]


async def test_an_answer_of_an_unread_contract_is_unchecked(
    running: Embedded, clients: list[DatabaseClient], tmp_path: Path
) -> None:
    await sent(running, PurchaseWanted(purchase_id="desk-1"))
    await sent(running, Approved(purchase_id="desk-1"), event_id=new_id())
    await verified(clients)
    undeclared = DatabaseClient("desk", f"sqlite:///{tmp_path}/desk.db")

    report = await verify([each if each.service != "desk" else undeclared for each in clients])
    await undeclared.close()

    assert report.violations == []
    assert [each for each in report.unchecked if each.startswith("desk-1: decide took a Approved")]


async def sent(running: Embedded, event: Event, **facts: object) -> None:
    await running.publish(message(event, "desk-1", saga_type="purchase", **facts))


async def verified(clients: list[DatabaseClient]) -> VerificationReport:
    """Verify, once the saga's end has arrived everywhere and no event is left in an outbox."""

    async def is_over() -> bool:
        steps = {each.step: each.to_state for each in (await timeline_of(SAGA, clients)).entries if each.position}
        is_left = any([(await each.backlog()).outbox for each in clients])
        return list(steps.values()) == ["confirmed"] * 3 and not is_left

    await eventually(is_over, what="the end")
    return await verify(clients)
