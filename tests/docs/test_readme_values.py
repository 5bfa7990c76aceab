"""The READMEs' values to test with: a saga with each of them ends as the table states."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DEMONSTRATED, README, rows, section
from toolkit import Answer, Settings
from toolkit.cli.demonstration import PATIENCE, Demo, End, Scenario, end_of
from toolkit.cli.demonstration_answers import GivenAnswer, play
from toolkit.client.saga_client import SagaClient
from toolkit.client.saga_report import timelines_of
from toolkit.client.service_locations import in_database
from toolkit.clock import SystemClock
from toolkit.transport.embedded import Embedded

PAGES = {"services": README} | {f"examples.{name}": page for name, page in DEMONSTRATED.items()}
#: Long enough for four attempts, and short enough for an outside system that never answers.
TIMEOUTS = dict.fromkeys(("process_payment", "clear_transfer", "book_room", "book_flight", "book_car"), 6)


@pytest.mark.parametrize("package", PAGES)
async def test_readme_values_end_their_sagas_as_stated(package: str, tmp_path: Path) -> None:
    demo: Demo = import_module(f"{package}.demo").DEMO
    facts: dict[str, Any] = {"step_timeouts": TIMEOUTS, **demo.settings}
    settings = Settings(data_dir=tmp_path, broker_url="embedded", **facts)
    table = {
        f"saga-{number}": cells for number, cells in enumerate(rows(section(PAGES[package], "Values to test with")))
    }
    services = {each.name: each for each in demo.services}
    clients = [in_database(name, settings.database_for(name), settings, services.__getitem__) for name in services]
    async with Embedded(demo.services, settings) as embedded:
        client = SagaClient([demo.saga], embedded, clients, clock=SystemClock())
        for saga_id, (values, *_) in table.items():
            scenario = scenario_of(saga_id, values, demo)
            await client.start(scenario.event(demo.saga, demo.saga.starts_with))
            answers = await play(demo.saga, saga_id, scenario.answers, client, within=PATIENCE)
            assert all(each.is_right for each in answers), answers
        for saga_id in table:  # a question that is never answered waits for its deadline
            await client.wait(saga_id, timeout=timedelta(minutes=1))
        timelines = await timelines_of([(demo.saga.name, saga_id) for saga_id in table], clients)
    for each in clients:
        await each.close()

    outcomes = {each.saga_id: end_of(demo, each) for each in timelines}
    ends = {saga_id: (each.state, ", ".join(each.undone) or "nothing") for saga_id, each in outcomes.items()}
    assert ends == {saga_id: (state, undone) for saga_id, (_, state, undone, _) in table.items()}


def scenario_of(saga_id: str, values: str, demo: Demo) -> Scenario:
    """Return the scenario of a row: `--set field=value`, then the answers, such as `Declined --set why=dear`."""
    changes, *answers = [shlex.split(each) for each in re.findall(r"`(.+?)`", values)]
    known = {event.__name__: event for each in demo.services for event in each.consumed() if issubclass(event, Answer)}
    given = [GivenAnswer(known[name], by="ada", changes=tuple(rest[1::2])) for name, *rest in answers]
    return Scenario(saga_id, "", End(None), tuple(changes[1::2]), answers=tuple(given))
