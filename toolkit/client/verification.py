"""The verdict on a whole system: every saga's log from every service, judged by the invariants, and what is left over.

Tests after a disaster and people by `saga verify` call the same function. It reads each log once, page by page, and
puts the sagas together here: no question is asked for each saga.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern
from typing import Any, Protocol

from toolkit.client.sources import DatabaseSource, Source, ask_all, pages
from toolkit.configuration.settings import Settings
from toolkit.declaration.events import SagaState
from toolkit.errors import UnreachableError
from toolkit.persistence.saga_log import SagaKey
from toolkit.protocol.invariants import Backlog, Violation, at_rest, violations_of
from toolkit.protocol.timeline import LogEntry, tell
from toolkit.transport.rabbitmq.topology import queue_depths

#: After so many sagas the event loop gets its turn: judging is arithmetic, and progress is to be seen.
_AT_ONCE = 200


class CheckResult(Protocol):
    """What a check of the services' own says: what has to hold, whether it does, and what was found."""

    @property
    def claim(self) -> str:
        """What has to hold."""
        ...

    @property
    def holds(self) -> bool:
        """Whether it does."""
        ...

    @property
    def found(self) -> str:
        """What was found."""
        ...


#: A check of the services' own, money say: it is given the databases' URLs by service, and how each saga ended, by its
#: type and id (None: it has not). It raises UnreachableError where something that it needs can't be read.
Check = Callable[[Mapping[str, str], Mapping[SagaKey, SagaState | None]], Awaitable[CheckResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """What was found.

    - `unchecked`: what could not be looked at, and why.
    - `is_broker_away`: the queues of the broker that was named could not be looked at.
    - `sagas`, `left_out`: how many were judged, and how many were not: they had just moved, or are pruned in part.
    - `unreachable`: services of which nothing is known; then no saga was judged at all.
    """

    violations: Sequence[Violation] = ()
    unchecked: Sequence[str] = ()
    is_broker_away: bool = False
    sagas: int = 0
    left_out: int = 0
    unreachable: Mapping[str, str] = field(default_factory=dict)


async def verify(
    sources: Sequence[Source],
    *,
    checks: Iterable[Check] = (),
    broker: Settings | None = None,
    settled_before: datetime | None = None,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> VerificationReport:
    """Read all there is, and judge it.

    - `broker`: the settings that name the broker whose queues are looked at; None: nobody looks.
    - `settled_before`: judge only sagas that have not moved since, and not what is left over: the services are at work.
    - `progress`: is told what is being done, and how many more of it are done.
    """
    logs = await ask_all(sources, lambda source: _read(source, progress), within=None)
    backlog = await ask_all(sources, lambda source: source.backlog())
    if unreachable := logs.unreachable | backlog.unreachable:
        return VerificationReport(unreachable=unreachable)
    timelines = _by_saga(logs.by_service)
    watermark = max((each.pruned_until for each in backlog.by_service.values() if each.pruned_until), default=None)
    whole = {saga: told for saga, told in timelines.items() if _is_whole(told, watermark, settled_before)}
    violations, outcomes = await _verify_all(whole, progress)
    left = _Left(unchecked=["what is left over"]) if settled_before else await _left_over(backlog.by_service, broker)
    own, unchecked_of_own = await _run(checks, sources, outcomes)
    return VerificationReport(
        violations=[*violations, *left.violations, *own],
        unchecked=[*left.unchecked, *unchecked_of_own],
        is_broker_away=left.is_broker_away,
        sagas=len(whole),
        left_out=len(timelines) - len(whole),
    )


async def _read(source: Source, progress: Callable[[str, int], None]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    async for page in pages(source):
        entries += map(_slim, page)
        progress("log entries read", len(page))
    return entries


def _slim(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with each word kept once in memory: ids and names recur in every line."""
    return {name: intern(value) if isinstance(value, str) else value for name, value in entry.items()}


def _by_saga(logs: Mapping[str, Sequence[LogEntry]]) -> dict[SagaKey, dict[str, list[LogEntry]]]:
    timelines: dict[SagaKey, dict[str, list[LogEntry]]] = {}
    for service, entries in logs.items():
        for entry in entries:
            saga = entry["saga_type"], entry["saga_id"]
            timelines.setdefault(saga, {}).setdefault(service, []).append(entry)
    return timelines


def _is_whole(
    told: Mapping[str, Sequence[LogEntry]], watermark: datetime | None, settled_before: datetime | None
) -> bool:
    """Whether no service has pruned any of the saga, and none is writing more of it."""
    times = [entry["at"] for entries in told.values() for entry in entries]
    return (watermark is None or min(times) > watermark) and (settled_before is None or max(times) < settled_before)


async def _verify_all(
    timelines: Mapping[SagaKey, Mapping[str, Sequence[LogEntry]]], progress: Callable[[str, int], None]
) -> tuple[list[Violation], dict[SagaKey, SagaState | None]]:
    consumed: dict[str, set[str]] = {}
    for (saga_type, _), told in timelines.items():
        consumed.setdefault(saga_type, set()).update(entry["event_type"] for log in told.values() for entry in log)
    found: list[Violation] = []
    outcomes: dict[SagaKey, SagaState | None] = {}
    for number, (saga, logs) in enumerate(timelines.items(), start=1):
        saga_type, saga_id = saga
        timeline = tell(saga_id, logs)
        found += violations_of(saga_id, timeline.entries, consumed=consumed[saga_type])
        outcomes[saga] = timeline.state if timeline.state and timeline.state.is_ended else None
        progress("sagas judged", 1)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found, outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """What is left over, as far as it could be looked at."""

    violations: Sequence[Violation] = ()
    unchecked: Sequence[str] = ()
    is_broker_away: bool = False


async def _left_over(backlog: Mapping[str, Backlog], broker: Settings | None) -> _Left:
    if broker is None:
        return _Left(
            violations=at_rest(backlog.values()), unchecked=["the broker's queues: SAGA_BROKER_URL names none"]
        )
    if broker.broker_url == "embedded":
        return _Left(violations=at_rest(backlog.values()))
    try:
        depths = await queue_depths(broker, backlog)
    except UnreachableError as error:
        unchecked = [f"the broker's queues: {error}"]
        return _Left(violations=at_rest(backlog.values()), unchecked=unchecked, is_broker_away=True)
    queues = [
        Backlog(name, queued=queued, dead_lettered=dead_lettered) for name, (queued, dead_lettered) in depths.items()
    ]
    return _Left(violations=at_rest([*backlog.values(), *queues]))


async def _run(
    checks: Iterable[Check], sources: Sequence[Source], outcomes: Mapping[SagaKey, SagaState | None]
) -> tuple[list[Violation], list[str]]:
    databases = {source.service: source.url for source in sources if isinstance(source, DatabaseSource)}
    found, unchecked = [], []
    for check in checks:
        try:
            claim = await check(databases, outcomes)
        except UnreachableError as error:
            unchecked.append(str(error))
        else:
            found += [] if claim.holds else [Violation(claim.claim, None, claim.found)]
    return found, unchecked
