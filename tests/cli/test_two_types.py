"""An order and its gift under one id: no verb takes the one for the other, or guesses which is meant."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cli.conftest import Saga, service_options
from tests.orders import refused_order
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letters, saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.saga_log import Entry

#: The gift has gone back where the order waits for its shipment.
GIFT = [replace(each, saga_type="gift", emitted_body="{}") for each in refused_order("order-2")]


def dead_letter_of(kind: str) -> DeadLetter:
    message = WireMessage(
        b"{}", "shipping.ShipmentFailed", message_id=f"of the {kind}", correlation_id="order-2", type="ShipmentFailed",
        headers={"saga-type": kind},
    )  # fmt: skip
    return DeadLetter(
        id=f"letter-{kind}", service="payment", reason="retries spent", error="away", message=message,
        step="process_payment", at=datetime.now(UTC),
    )  # fmt: skip


@pytest.fixture
def both(logs: dict[str, str]) -> dict[str, str]:
    """The services' databases, with a gift under the order's id."""
    for name, url in logs.items():
        added = [dead_letter_of("gift"), dead_letter_of("order")] if name == "payment" else []
        asyncio.run(write(url, [each for each in GIFT if each.service == name], added))
    return logs


async def write(url: str, entries: list[Entry], added: list[DeadLetter]) -> None:
    database = Database(url)
    async with database.transaction() as session:
        connection = await session.connection()
        await saga_log.append(connection, entries)
        await dead_letters.add(connection, added)
    await database.close()


@pytest.mark.parametrize(
    "command",
    [
        ["trace", "order-2"],
        ["nudge", "order-2", "--reason", "why"],
        ["abort", "order-2", "--reason", "why"],
        ["replay", "order-2", "--reason", "why"],
        ["dead-letters", "redrive", "payment", "--saga", "order-2", "--reason", "why"],
        ["dead-letters", "drop", "payment", "--saga", "order-2", "--reason", "why"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_verb_asks_for_the_type(saga: Saga, both: dict[str, str], serve: Any, monkeypatch: Any, command: list[str]):
    monkeypatch.setenv("SAGA_API_TOKEN", "open-sesame-now")
    at_http = {name: serve(name, url) for name, url in both.items()}
    for services in (both, at_http):
        result = saga(*command, *service_options(services))

        assert result.exit_code == 2
        assert "sagas of several types have the id 'order-2': gift, order" in result.stderr
        assert result.stderr.rstrip().endswith("--type gift or --type order")


@pytest.mark.parametrize(("kind", "state"), [("gift", "Failed"), ("order", "Pending")])
def test_a_story_is_that_of_one_type(saga: Saga, both: dict[str, str], kind: str, state: str):
    result = saga("trace", "order-2", "--type", kind, "-o", "json")

    timeline = json.loads(result.stdout)
    assert (result.exit_code, timeline["saga_type"], timeline["state"]) == (0, kind, state)
    assert {entry["saga_type"] for entry in timeline["entries"]} == {kind}


def test_types_in_two_services_are_told_apart_too(saga: Saga, logs: dict[str, str]):
    asyncio.run(write(logs["shipping"], [each for each in GIFT if each.service == "shipping"], []))

    for command in (["trace", "order-2"], ["replay", "order-2", "--reason", "why"]):
        assert saga(*command).exit_code == 2


def test_a_push_reaches_the_type_that_is_said(saga: Saga, both: dict[str, str]):
    replayed = saga("replay", "order-2", "--type", "order", "--reason", "why", "-o", "json")
    nudged = saga("nudge", "order-2", "--type", "gift", "--reason", "why", "-o", "json")

    assert {row["saga_type"] for row in json.loads(replayed.stdout)} == {"order"}
    assert (nudged.exit_code, {row["outcome"] for row in json.loads(nudged.stdout)}) == (1, {"refused"})


def test_dead_letters_of_the_named_type_are_redriven(saga: Saga, both: dict[str, str]):
    command = ("dead-letters", "redrive", "payment", "--saga", "order-2", "--reason", "why", "-o", "json")
    gift, order = saga(*command, "--type", "gift"), saga(*command, "--type", "order")

    assert [(row["id"], row["outcome"]) for row in json.loads(gift.stdout)] == [("letter-gift", "refused")]
    assert [(row["id"], row["outcome"]) for row in json.loads(order.stdout)] == [("letter-order", "redriven")]


def test_lists_tell_the_types_where_there_are_several(saga: Saga, both: dict[str, str]):
    listed = [row for row in json.loads(saga("ls", "-o", "json").stdout) if row["saga_id"] == "order-2"]
    heading = {command: saga(*command.split()).stdout.splitlines()[0] for command in ("log payment", "ls")}

    assert {(row["saga_type"], row["state"]) for row in listed} == {("order", "Pending"), ("gift", "Failed")}
    assert all("saga type" in each for each in heading.values())
    table = saga("dead-letters", "ls", "payment").stdout
    assert "saga type" in table.splitlines()[0]


def test_the_log_is_narrowed_to_a_type(saga: Saga, both: dict[str, str]):
    rows = json.loads(saga("log", "payment", "--saga", "order-2", "--type", "gift", "-o", "json").stdout)
    alone = saga("log", "payment", "--type", "gift")

    assert [row["saga_type"] for row in rows] == ["gift"] * len([each for each in GIFT if each.service == "payment"])
    assert (alone.exit_code, "--saga ID" in alone.stderr) == (2, True)
