"""Sensitive values that a step leaks are redacted before they are stored, logged or published."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import pytest
import structlog
from pydantic import BaseModel, field_validator

from tests.conformance.world import settings_for
from tests.eventually import eventually
from toolkit import Event, Participant, Refusal, RetryPolicy, Saga, SagaId, Sensitive, Service
from toolkit.declaration.contract import Contract
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Envelope
from toolkit.operations import views
from toolkit.persistence import dead_letter_queries, saga_log_queries
from toolkit.transport.embedded import Embedded

SECRET = "4111-2222-3333"
NEVER = RetryPolicy(attempts=1)


class BillSent(Event, owner="client"):
    bill_id: SagaId
    how: str
    card: Annotated[str, Sensitive]

    @field_validator("card")
    @classmethod
    def is_a_card(cls, value: str) -> str:
        if value.endswith("?"):
            raise ValueError(f"{value} is no card")
        return value


class BillPaid(Event, owner="till", optional=True):
    bill_id: SagaId


class BillRefused(Refusal, owner="till", optional=True):
    bill_id: SagaId
    clerk: Annotated[str, Sensitive] = ""


class Money(BaseModel):
    amount: int


BILL = Saga(name="bill", id_field="bill_id", starts_with=BillSent, completes_with=BillPaid, fails_with=BillRefused)


def till(*, refusable: bool) -> Service:
    """Return a service whose step leaks its event's values, in the way that the event names."""
    participant = Participant("till", saga=BILL, retry=NEVER)

    async def take_money(event: BillSent) -> BillPaid | BillRefused:
        return _leak(event)

    async def surely_take_money(event: BillSent) -> BillPaid:
        return _leak(event)

    participant.step()(take_money if refusable else surely_take_money)
    return Service(name="till", participants=[participant])


def _leak(event: BillSent) -> Any:
    if event.how == "validation":
        Money.model_validate({"amount": event.card})
    if event.how == "refusal":
        return BillRefused(bill_id=event.bill_id, reason=f"card {event.card} is unknown to Ada", clerk="Ada")
    if event.how == "wrong type":
        return event
    raise RuntimeError(f"the terminal ate {event.card}")


@asynccontextmanager
async def paying(
    tmp_path: Path, how: str, *, refusable: bool, card: str = SECRET, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Embedded]:
    """Publish a bill, and wait until its message is settled."""
    async with Embedded([till(refusable=refusable)], settings_for(tmp_path)) as embedded:
        body = json.dumps({"bill_id": "bill-1", "how": how, "card": card}).encode()
        envelope = Envelope(
            event_id=derived_id("bill", "bill-1", "BillSent"), event_type="BillSent", version=1, saga_id="bill-1",
            saga_type="bill", occurred_at=datetime.now(UTC),
        )  # fmt: skip
        wire = envelope.wrap(body, BillSent)
        await embedded.publish(replace(wire, headers={**wire.headers, **(headers or {})}))
        await eventually(lambda: written(embedded))
        yield embedded


async def written(embedded: Embedded) -> dict[str, list[Any]] | None:
    """Return the entries of the log and the dead letters, or None while there are neither."""
    async with embedded.runtimes["till"].database.reading() as connection:
        found = {
            "entries": await saga_log_queries.timeline(connection, "bill-1"),
            "dead letters": await dead_letter_queries.listed(connection),
        }
    return found if any(found.values()) else None


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """All log lines of the toolkit during the test."""
    shown = StringIO()
    for module in [each for name, each in sys.modules.items() if name.startswith("toolkit.")]:
        if "log" in vars(module) and hasattr(module.log, "bind"):
            plain = structlog.PrintLogger(shown)
            everything = structlog.wrap_logger(
                plain, [structlog.processors.JSONRenderer()], wrapper_class=structlog.stdlib.BoundLogger
            )
            monkeypatch.setattr(module, "log", everything)
    return shown


@pytest.mark.parametrize("how", ["refusal", "error", "validation", "wrong type"])
@pytest.mark.parametrize("refusable", [True, False], ids=["refusable", "not refusable"])
async def test_a_steps_leaks_are_redacted_everywhere(tmp_path, lines, how, refusable):
    async with paying(tmp_path, how, refusable=refusable) as embedded:
        found = await written(embedded)

    bodies = [each.body for each in found["dead letters"]]
    found["dead letters"] = [replace(each, body="") for each in found["dead letters"]]
    assert SECRET not in repr(found)
    assert "***" in repr(found) or how == "wrong type" or (how == "refusal" and not refusable)
    assert all(SECRET in body for body in bodies), "a dead letter keeps its whole body"
    assert '"saga_id": "bill-1"' in lines.getvalue()
    assert SECRET not in lines.getvalue()


async def test_a_refusals_reason_leaves_redacted(tmp_path):
    async with paying(tmp_path, "refusal", refusable=True) as embedded:
        found = await written(embedded)

    refused = found["entries"][0]
    assert refused.error == "card *** is unknown to ***"
    assert json.loads(refused.emitted_body) == {
        "reason": "card *** is unknown to Ada", "bill_id": "bill-1", "clerk": "Ada"
    }  # fmt: skip


async def test_an_events_validator_leaks_no_secret(tmp_path):
    async with paying(tmp_path, "refusal", refusable=True, card=f"{SECRET}?") as embedded:
        found = await written(embedded)

    (dead_letter,) = found["dead letters"]
    assert (dead_letter.reason, dead_letter.error) == ("schema", "BillSent: card: Value error, *** is no card")


@pytest.mark.parametrize("header", ["event-version", "occurred-at", "attempt"])
@pytest.mark.parametrize("card", [SECRET, f"{SECRET}-{SECRET}-{SECRET}"], ids=["short", "long"])
async def test_a_secret_header_stays_out_of_logs(tmp_path, lines, header, card):
    async with paying(tmp_path, "refusal", refusable=True, card=card, headers={header: f"<b>{card}"}) as embedded:
        found = await written(embedded)

    (dead_letter,) = found["dead letters"]
    assert (dead_letter.reason, SECRET in dead_letter.error) == ("broken header", False)
    assert "message dead-lettered" in lines.getvalue()
    assert SECRET not in lines.getvalue()


@pytest.mark.parametrize("header", ["event-version", "occurred-at", "x-death-reason"])
async def test_a_secret_header_stays_out_of_dead_letters(tmp_path, header):
    headers = {"occurred-at": "?", header: f"<b>{SECRET}"}
    async with paying(tmp_path, "refusal", refusable=True, headers=headers) as embedded:
        (dead_letter,) = (await written(embedded))["dead letters"]
        declared = Contract.of(till(refusable=True)).events
        async with embedded.runtimes["till"].database.reading() as connection:
            shown = await views.whole_dead_letter(connection, dead_letter.id, declared)

    assert SECRET in repr(dead_letter.headers)
    assert SECRET not in repr(shown)
