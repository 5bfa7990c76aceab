"""The report of chaos runs, as a page for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.chaos.outcome import Outcome
from tests.servers import POSTGRESQL, RABBITMQ, docker_is_there

_ABOUT = {
    "chaos": "Sagas of every shape start at a steady rate at two replicas of each service, under all faults at once.",
    "coordinated": "The same, with a coordinator of the orders in a fifth service.",
    "duplicates": "A tap delivers messages in random order, from a window of 50, and every fifth message twice.",
    "commit-order": "Pairs of transactions write to an outbox and commit in either order, while a relay publishes.",
    "partitions": "The network between the broker and one, two or all services fails, in one or both directions.",
    "recovery": "Services are killed, with and without a second replica, and sagas become overdue.",
    "releases": "New releases consume one event less, read a newer version of an event, and rename a step.",
}
#: The most violations on the page.
_SHOWN = 20


def write(outcomes: Sequence[Outcome], directory: Path) -> list[Path]:
    """Write `chaos.md` and `chaos.json`, and return their paths; earlier runs stay in them."""
    directory.mkdir(parents=True, exist_ok=True)
    page, data = directory / "chaos.md", directory / "chaos.json"
    runs = {each["run"]: each for each in json.loads(data.read_text())} if data.exists() else {}
    runs |= {each.run: {**asdict(each), "where": _facts()} for each in outcomes}
    kept = [runs[name] for name in _ABOUT if name in runs]
    page.write_text("\n".join(_page(kept)) + "\n")
    data.write_text(json.dumps(kept, indent=1) + "\n")
    return [page, data]


def _page(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "# Chaos"
    yield ""
    yield "`make chaos` writes this page, by `tests/chaos/`. Processes are killed and containers restarted; a proxy on"
    yield "127.0.0.1 interrupts connections. The results are read from the tables and the queues."
    for each in runs:
        yield ""
        yield f"## {each['run'].capitalize()}"
        yield ""
        yield f"{_ABOUT[each['run']]} Seed {each['seed']}, {each['seconds']:.0f} s."
        yield ""
        yield from _table(each["figures"])
        yield ""
        yield from _result(each["violations"])
        yield ""
        yield f"Environment: {'; '.join(f'{name} {value}' for name, value in each['where'].items())}."


def _table(figures: dict[str, object]) -> Iterator[str]:
    yield "| measurement | value |"
    yield "|---|---|"
    for name, figure in figures.items():
        if isinstance(figure, dict) and "p50" in figure:
            yield f"| {name} | {', '.join(f'{key} {value}' for key, value in figure.items())} |"
        elif isinstance(figure, dict):
            yield from (f"| {name}: {key} | {value} |" for key, value in figure.items())
        else:
            yield f"| {name} | {figure} |"


def _result(violations: Sequence[str]) -> Iterator[str]:
    if not violations:
        yield "**No violation.**"
        return
    yield f"**{len(violations)} violations:**"
    yield ""
    yield from (f"- {each}" for each in violations[:_SHOWN])


def _facts() -> dict[str, str]:
    where = "containers of this run" if docker_is_there() else "servers of this machine; the proxy simulated restarts"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "servers": f"{RABBITMQ.image}, {POSTGRESQL.image}; {where}",
        **{name: version(name) for name in ("faststream", "aio-pika", "sqlalchemy", "asyncpg")},
    }
