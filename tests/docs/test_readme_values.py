"""The READMEs' values to test with: a saga with each of them ends as the table states."""

from __future__ import annotations

import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.pages import EXAMPLES, README, rows, section
from toolkit import Settings
from toolkit.cli.demonstration import Demo, Outcome, Scenario, outcome_of
from toolkit.client.database_client import DatabaseClient
from toolkit.client.saga_report import timelines_of
from toolkit.client.starting import send
from toolkit.clock import SystemClock
from toolkit.transport.embedded import Embedded

PAGES = {"services": README} | {f"examples.{name}": page for name, page in EXAMPLES.items()}
#: Long enough for four attempts, and short enough for an outside system that never answers.
TIMEOUTS = dict.fromkeys(("process_payment", "clear_transfer", "book_room", "book_flight", "book_car"), 6)


@pytest.mark.parametrize("package", PAGES)
async def test_readme_values_end_their_sagas_as_stated(package: str, tmp_path: Path) -> None:
    demo: Demo = import_module(f"{package}.demo").DEMO
    settings = Settings(data_dir=tmp_path, broker_url="embedded", step_timeouts=TIMEOUTS, **demo.settings)
    table = {
        f"saga-{number}": cells for number, cells in enumerate(rows(section(PAGES[package], "Values to test with")))
    }
    async with Embedded(demo.services, settings) as embedded:
        for saga_id, (changes, *_) in table.items():
            scenario = Scenario(saga_id, "", Outcome(None), tuple(shlex.split(changes.strip("`"))[1::2]))
            event = scenario.event(demo.saga, demo.saga.starts_with)
            await send(demo.saga, {saga_id: event}, embedded, clock=SystemClock())
        assert await embedded.settled(60)
        outcomes = await outcomes_of(demo, settings, list(table))

    ends = {saga_id: (each.state, ", ".join(each.undone) or "nothing") for saga_id, each in outcomes.items()}
    assert ends == {saga_id: (state, undone) for saga_id, (_, state, undone, _) in table.items()}


async def outcomes_of(demo: Demo, settings: Settings, saga_ids: list[str]) -> dict[str, Outcome]:
    """Return the outcomes of these sagas, from the services' databases."""
    clients = [DatabaseClient(each.name, settings.database_for(each.name)) for each in demo.services]
    timelines = await timelines_of([(demo.saga.name, saga_id) for saga_id in saga_ids], clients)
    for client in clients:
        await client.close()
    return {timeline.saga_id: outcome_of(demo, timeline) for timeline in timelines}
