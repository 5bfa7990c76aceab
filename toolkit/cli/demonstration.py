"""A demonstration, `saga demo`: sagas that succeed, and sagas that fail, in this process and on fresh files.

Each saga's end is compared with the expected one, and the checks of the services' own have to hold. A `demo` module
declares its scenarios and its checks as a `Demo`, and its `main` calls `run`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from toolkit.cli import demonstration_output as output
from toolkit.cli.demonstration_answers import GivenAnswer, PlayedAnswer, play
from toolkit.cli.payload import apply, example_of, validated
from toolkit.cli.progress_bars import progress
from toolkit.client.account_checks import AccountCheck, CheckResult, RepeatedChecks
from toolkit.client.saga_client import SagaClient
from toolkit.client.saga_report import timelines_of
from toolkit.client.service_client import LogReader
from toolkit.client.service_locations import in_database
from toolkit.client.starting import client_tracing, send
from toolkit.client.waiting import wait_until_ended
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings, load_settings
from toolkit.declaration.events import Event, Saga, SagaState
from toolkit.declaration.service import Service
from toolkit.observability.logs import configure_logs
from toolkit.observability.tracing import Tracing
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.timeline import Timeline
from toolkit.transport.embedded import Embedded

#: The slowest sagas make four attempts at an outside call, which take about two seconds; a busy machine takes longer.
PATIENCE = timedelta(seconds=30)

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class End:
    """A saga's end: its state, the services that undid it in their order, and the number of failed attempts."""

    state: SagaState | None
    undone: tuple[str, ...] = ()
    retries: int = 0

    def __str__(self) -> str:
        return f"{self.state} (undone: {', '.join(self.undone) or 'nothing'}; retries: {self.retries})"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One saga: the example of its starting event with these changes, people's answers, and the expected end."""

    id: str
    plot: str
    expected: End
    changes: tuple[str, ...] = ()
    sent: int = 1
    answers: tuple[GivenAnswer, ...] = ()

    @property
    def is_answered_late(self) -> bool:
        """Whether an answer is given after the saga's end."""
        return any(each.is_late for each in self.answers)

    def event(self, saga: Saga, kind: type[E]) -> E:
        """Return the event that starts it, of this type, built as by `saga trigger --set …`."""
        fields = example_of(saga) | {saga.id_field: self.id}
        for change in self.changes:
            apply(change, fields)
        return validated(kind, fields)


@dataclass(frozen=True, slots=True)
class Results:
    """The timelines of a demonstration's sagas by id, after their end, and the settings that find their databases."""

    settings: Settings
    timelines: Mapping[str, Timeline]


async def _no_checks(_: Results) -> list[CheckResult]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What a demonstration runs, and what has to come of it.

    - `package`: the services' package; `directory`: the subdirectory of the data directory for their files.
    - `has_branches`: parallel ones, undone in any order, or fenced: ends name their services alphabetically.
    - `ledgers`: variables that name an outside ledger; unset, it is a fresh file, which holds no earlier run's sagas.
    - `checks`: the checks at the end; `always`: those that have to hold at every moment, too.
    - `settings`: the services' settings, by name, beside those of the environment.
    - `try_next`: arguments of `saga` that show more of the result.
    """

    package: str
    directory: str
    saga: Saga
    services: Sequence[Service]
    scenarios: Sequence[Scenario]
    has_branches: bool = False
    ledgers: Sequence[str] = ()
    checks: Callable[[Results], Awaitable[Sequence[CheckResult]]] = _no_checks
    always: Sequence[AccountCheck] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    try_next: Sequence[str] = ()


def run(demo: Demo) -> int:
    """Run the demonstration; return 0 if every saga ended as expected and all checks hold, else 1."""
    for variable in demo.ledgers:
        os.environ.pop(variable, None)
    settings = fresh_settings(demo.directory, **demo.settings)
    timelines, answers, checks = asyncio.run(perform(demo, settings))
    ends = {saga_id: end_of(demo, timeline) for saga_id, timeline in timelines.items()}
    wrong = list(faults(demo, ends))
    output.print_ends(demo.saga.name, [_line(each, timelines[each.id], ends) for each in demo.scenarios], wrong)
    output.print_answers(demo.saga.name, answers)
    output.print_longest_compensation(max(timelines.values(), key=lambda each: len(ends[each.saga_id].undone)))
    output.print_checks(checks)
    is_right = all(check.holds for check in checks) and all(each.is_right for each in answers) and not wrong
    output.print_ending(is_right=is_right)
    output.print_commands(demo.package, settings.data_dir, demo.try_next)
    return 0 if is_right else 1


def fresh_settings(directory: str, **facts: object) -> Settings:
    """Return settings with this subdirectory as the data directory, after deleting an earlier run's files."""
    data_dir = load_settings().data_dir / directory
    for path in data_dir.glob("*.db*"):
        path.unlink()
    known = {"data_dir": data_dir, "broker_url": "embedded", "database_url": None, "log_level": "error"}
    settings = load_settings(**(known | facts))
    configure_logs(settings)
    return settings


async def perform(demo: Demo, settings: Settings) -> tuple[dict[str, Timeline], list[PlayedAnswer], list[CheckResult]]:
    """Send all starting events, give the answers, wait for the sagas' ends, and run the checks."""
    services = {each.name: each for each in demo.services}
    databases = {name: settings.database_for(name) for name in services}
    async with AsyncExitStack() as stack:
        clients = [in_database(name, url, settings, services.__getitem__) for name, url in databases.items()]
        for client in clients:
            stack.push_async_callback(client.close)
        embedded = await stack.enter_async_context(Embedded(demo.services, settings))
        repeated = await stack.enter_async_context(RepeatedChecks(demo.always, databases))
        people = SagaClient((demo.saga,), embedded, clients, clock=SystemClock())
        async with client_tracing(settings) as tracing:
            plays = await start(demo, embedded, people, tracing)
        timelines = await ended(demo, embedded, clients)
        answers = [answer for each in plays for answer in await each]
    states = {(demo.saga.name, saga_id): timeline.state for saga_id, timeline in timelines.items()}
    of_services = [*await demo.checks(Results(settings, timelines)), *await repeated.results(states)]
    return timelines, answers, [*of_services, steps_are_done_once(timelines)]


async def start(
    demo: Demo, embedded: Embedded, people: SagaClient, tracing: Tracing | None
) -> list[asyncio.Task[list[PlayedAnswer]]]:
    """Send the starting event of each scenario, as often as it is to be sent; return the tasks that answer its saga."""
    plays = []
    for scenario in demo.scenarios:
        events = {scenario.id: scenario.event(demo.saga, demo.saga.starts_with)}
        for _ in range(scenario.sent):
            await send(demo.saga, events, embedded, clock=SystemClock(), tracing=tracing)
        answers = play(demo.saga, scenario.id, scenario.answers, people, within=PATIENCE)
        plays.append(asyncio.create_task(answers))
        if not scenario.is_answered_late:
            await plays[-1]  # before more sagas start: a busy machine would miss a short deadline
    return plays


async def ended(demo: Demo, embedded: Embedded, clients: Sequence[LogReader]) -> dict[str, Timeline]:
    """Return the timelines of all sagas once no message is in flight; meanwhile, show how many have ended."""
    name, ids = demo.saga.name, [scenario.id for scenario in demo.scenarios]
    with progress() as bar:
        task = bar.add_task(f"{name}s ended", total=len(ids))
        await wait_until_ended(name, ids, clients, within=PATIENCE, ended=lambda _: bar.advance(task))
    await embedded.settled(PATIENCE.total_seconds())
    return {each.saga_id: each for each in await timelines_of([(name, saga_id) for saga_id in ids], clients)}


def end_of(demo: Demo, timeline: Timeline) -> End:
    """Return the end of the saga with this timeline."""
    states = (StepState.COMPENSATED, StepState.FENCED) if demo.has_branches else (StepState.COMPENSATED,)
    undone = [each.service for each in timeline.effects if each.to_state in states]
    retries = sum(each.to_state == Note.RETRYING for each in timeline.entries)
    return End(timeline.state, tuple(sorted(undone) if demo.has_branches else undone), retries)


def faults(demo: Demo, ends: Mapping[str, End]) -> Iterator[str]:
    """Yield each saga whose end is not the expected one."""
    for each in demo.scenarios:
        if ends[each.id] != each.expected:
            yield f"{each.id} should have ended as {each.expected}, and ended as {ends[each.id]}"


def steps_are_done_once(timelines: Mapping[str, Timeline]) -> CheckResult:
    """Check that no step of any saga was done twice, although a starting event may have been sent twice."""
    entries = [entry for timeline in timelines.values() for entry in timeline.effects]
    done = [(each.saga_id, each.step) for each in entries if each.to_state == StepState.COMPLETED]
    found = f"{len(set(done))} steps, done {len(done)} times"
    return CheckResult("no step was done twice", len(done) == len(set(done)), found)


def _line(scenario: Scenario, timeline: Timeline, ends: Mapping[str, End]) -> output.Line:
    end = ends[scenario.id]
    return output.Line(scenario.id, scenario.plot, end.state, end.retries, timeline, is_right=end == scenario.expected)
