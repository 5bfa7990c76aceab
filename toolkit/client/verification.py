"""Verification of a whole system: every saga's log from every service against the invariants, and the backlog.

Tests after a disaster and `saga verify` call the same function. It reads each log once, page by page, and merges the
sagas here: no request is made per saga.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern

from toolkit.client.account_checks import AccountCheck
from toolkit.client.database_client import DatabaseClient
from toolkit.client.fan_out import RESPONSE_TIMEOUT, query_all
from toolkit.client.service_client import Entries, LogReader, ServiceClient
from toolkit.configuration.settings import Settings
from toolkit.declaration.events import SagaState
from toolkit.errors import UnreachableError
from toolkit.protocol.invariants import ROOTED, Backlog, Violation, at_rest, violations_of
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import tell

#: After so many sagas the event loop gets its turn: the invariants are arithmetic, and progress is shown meanwhile.
_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """The violations found, and what was not verified.

    - `unchecked`: what could not be read, and why.
    - `is_broker_away`: the queues of the named broker could not be read.
    - `sagas`, `left_out`: how many were verified, and how many were not: they had just moved, or are pruned in part.
    - `unreachable`: services that could not be read; then no saga was verified at all.
    """

    violations: Sequence[Violation] = ()
    unchecked: Sequence[str] = ()
    is_broker_away: bool = False
    sagas: int = 0
    left_out: int = 0
    unreachable: Mapping[str, str] = field(default_factory=dict)


async def verify(
    clients: Sequence[ServiceClient],
    *,
    checks: Iterable[AccountCheck] = (),
    broker: Settings | None = None,
    settled_before: datetime | None = None,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> VerificationReport:
    """Read all logs, and check every saga against the invariants.

    - `broker`: the settings of the broker whose queues are read; None: no queue is.
    - `settled_before`: verify only sagas that have not moved since, and no backlog: the services are at work.
    - `progress`: called with a count's name, and by how much it grew.
    """
    logs = await query_all(clients, lambda client: _read(client, progress), within=None)
    backlog = await query_all(clients, lambda client: client.backlog())
    if unreachable := logs.unreachable | backlog.unreachable:
        return VerificationReport(unreachable=unreachable)
    timelines = _by_saga(logs.by_service)
    watermark = max((each.pruned_until for each in backlog.by_service.values() if each.pruned_until), default=None)
    whole = {saga: logs for saga, logs in timelines.items() if _is_whole(logs, watermark, settled_before)}
    contracts = await query_all(clients, lambda client: client.contract())
    answers = {name for each in contracts.by_service.values() for name, event in each.events.items() if event.answer}
    violations, outcomes = await _verify_all(whole, answers, progress)
    violations, uncaused = _split(violations, contracts.unreachable)
    left = _Left(unchecked=["what is left over"]) if settled_before else await _left_over(backlog.by_service, broker)
    own, unchecked_of_own = await _run(checks, clients, outcomes)
    return VerificationReport(
        violations=[*violations, *left.violations, *own],
        unchecked=[*uncaused, *left.unchecked, *unchecked_of_own],
        is_broker_away=left.is_broker_away,
        sagas=len(whole),
        left_out=len(timelines) - len(whole),
    )


def _split(violations: Sequence[Violation], unread: Mapping[str, str]) -> tuple[list[Violation], list[str]]:
    """Part off the events without a cause where a contract can't be read: they may be answers, which no entry emits."""
    uncaused = [each for each in violations if unread and each.invariant == ROOTED]
    why = f"{', '.join(unread)} could not be asked for the contract: {next(iter(unread.values()), '')}"
    found = [f"{each.saga_id}: {each.text}, unless it is an answer; {why}" for each in uncaused]
    return [each for each in violations if each not in uncaused], found


async def _read(client: LogReader, progress: Callable[[str, int], None]) -> Entries:
    entries: Entries = []
    async for page in _pages(client):
        entries += map(_slim, page)
        progress("log entries read", len(page))
    return entries


async def _pages(client: LogReader) -> AsyncIterator[Entries]:
    """Yield the service's whole log, page by page; each page may take as long as any answer."""
    after: int | None = 0
    while after is not None:
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                page, after = await client.page(after)
        except TimeoutError as error:
            raise UnreachableError(f"no answer within {RESPONSE_TIMEOUT} seconds") from error
        yield page


def _slim(entry: LogEntry) -> LogEntry:
    """Return the entry with each text kept once in memory: ids and names recur in every entry."""
    row = entry.as_row()
    return LogEntry.of(row | {name: intern(value) for name, value in row.items() if type(value) is str})


def _by_saga(logs: Mapping[str, Sequence[LogEntry]]) -> dict[SagaKey, dict[str, list[LogEntry]]]:
    timelines: dict[SagaKey, dict[str, list[LogEntry]]] = {}
    for service, entries in logs.items():
        for entry in entries:
            saga = entry.saga_type, entry.saga_id
            timelines.setdefault(saga, {}).setdefault(service, []).append(entry)
    return timelines


def _is_whole(
    logs: Mapping[str, Sequence[LogEntry]], watermark: datetime | None, settled_before: datetime | None
) -> bool:
    """Whether no service has pruned any of the saga, and none is writing more of it."""
    times = [entry.at for entries in logs.values() for entry in entries]
    return (watermark is None or min(times) > watermark) and (settled_before is None or max(times) < settled_before)


async def _verify_all(
    timelines: Mapping[SagaKey, Mapping[str, Sequence[LogEntry]]],
    answers: Collection[str],
    progress: Callable[[str, int], None],
) -> tuple[list[Violation], dict[SagaKey, SagaState | None]]:
    consumed: dict[str, set[str]] = {}
    for (saga_type, _), logs in timelines.items():
        taken = (entry.event_type for log in logs.values() for entry in log)
        consumed.setdefault(saga_type, set()).update(event for event in taken if event)
    found: list[Violation] = []
    outcomes: dict[SagaKey, SagaState | None] = {}
    for number, (saga, logs) in enumerate(timelines.items(), start=1):
        saga_type, saga_id = saga
        timeline = tell(saga_id, logs)
        found += violations_of(saga_id, timeline.entries, consumed=consumed[saga_type], answers=answers)
        outcomes[saga] = timeline.state if timeline.state and timeline.state.is_ended else None
        progress("sagas verified", 1)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found, outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """What is left over, as far as it could be read."""

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
    from toolkit.transport.rabbitmq.topology import queue_depths  # an extra, which no other transport needs

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
    checks: Iterable[AccountCheck], clients: Sequence[LogReader], outcomes: Mapping[SagaKey, SagaState | None]
) -> tuple[list[Violation], list[str]]:
    databases = {client.service: client.url for client in clients if isinstance(client, DatabaseClient)}
    found, unchecked = [], []
    for check in checks:
        try:
            result = await check(databases, outcomes)
        except UnreachableError as error:
            unchecked.append(str(error))
        else:
            found += [] if result.holds else [Violation(result.claim, None, result.found)]
    return found, unchecked
