"""The costs of each shape of saga that the pages state are counted on the examples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.docs.pages import DOCS, README, rows, section
from toolkit import Settings
from toolkit.cli.demonstration import Demo, End, Scenario
from toolkit.client.database_client import DatabaseClient
from toolkit.client.starting import send
from toolkit.clock import SystemClock
from toolkit.declaration.events import SagaState
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.protocol.fence import StepState
from toolkit.transport.embedded import Embedded

#: The shapes of README's table, and the packages of their examples.
SHAPES = {
    "a line": "services",
    "parallel branches, joined": "examples.travel",
    "waiting for a person": "examples.approval",
    "a coordinator": "examples.orchestrated",
}
COORDINATE = DOCS / "how-to" / "coordinate-a-saga.md"


class Counted(Embedded):
    """Counts the messages that are published, without those that a service sends to itself."""

    published = 0

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        self.published += sum(destination is None for _, destination in messages)
        return await super().publish_many(messages)


def taken(services: Sequence[str]) -> int:
    """Return how many messages these services have taken in this process; each one alone is a transaction."""
    return int(sum(REGISTRY.get_sample_value("saga_batch_size_sum", {"service": each}) or 0 for each in services))


async def outside_calls(demo: Demo, settings: Settings) -> int:
    """Return how many calls the steps made, each of which takes one more transaction; a coordinator makes none."""
    total = 0
    for service in (each for each in demo.services if each.participants):
        client = DatabaseClient(service.name, settings.database_for(service.name))
        total += sum(entry.to_state == StepState.EXECUTING for entry in await client.entries("counted"))
        await client.close()
    return total


async def costs(package: str, directory: Path) -> tuple[int, int]:
    """Run one saga of the example that completes; return its messages and its transactions.

    Where it asks a person, an AMQP client answers, once the question is open.
    """
    demo: Demo = import_module(f"{package}.demo").DEMO
    settings, names = Settings(data_dir=directory, **demo.settings), [each.name for each in demo.services]
    async with Counted(demo.services, settings) as embedded:
        before = taken(names)
        event = Scenario("counted", "", End(None)).event(demo.saga, demo.saga.starts_with)
        await send(demo.saga, {"counted": event}, embedded, clock=SystemClock())
        assert await embedded.settled(60)
        for given in next((each.answers for each in demo.scenarios if each.expected.state == SagaState.COMPLETED), ()):
            answer = Envelope.of(given.event, saga=(demo.saga.name, "counted"), occurred_at=SystemClock().now())
            await embedded.publish(answer.carry(given.event_for(demo.saga, "counted")))
        assert await embedded.settled(60)
        return embedded.published, taken(names) - before + await outside_calls(demo, settings)


@pytest.mark.parametrize("shape", SHAPES)
async def test_readme_states_the_counted_cost_of_each_shape(shape: str, tmp_path: Path) -> None:
    stated = {cells[0]: cells[-2:] for cells in rows(section(README, "Shapes of a saga"))}

    messages, transactions = await costs(SHAPES[shape], tmp_path)

    assert [int(each.partition(":")[0]) for each in stated[shape]] == [messages, transactions]


@pytest.mark.parametrize(("package", "column"), [("services", 1), ("examples.orchestrated", 2)])
async def test_guide_states_the_counted_cost_of_a_coordinator(package: str, column: int, tmp_path: Path) -> None:
    cells = {each[0]: each[column] for each in rows(section(COORDINATE, "When")) if len(each) == 3}
    stated = [re.match(r"\d+", cells[name]) for name in ("messages", "transactions")]

    assert [each and int(each[0]) for each in stated] == [*await costs(package, tmp_path)]
