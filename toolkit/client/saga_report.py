"""Sagas as all services together show them: one saga's timeline and progress, and the sagas that moved last.

A service that does not answer is named as unreachable; its missing entries never make a saga look undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from toolkit.client.fan_out import Responses, query_all
from toolkit.client.service_client import LogReader, ServiceClient
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.operations.search import FoundSaga, Search
from toolkit.operations.views import SagaView, require_one_type
from toolkit.protocol.fence import SagaState
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.timeline import Timeline, tell
from toolkit.tracking.progress import Progress, progress

#: How many sagas are read at once: enough to hide the latency, too few to make a service slow.
_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class SagaReport:
    """A saga's timeline, how far it has come, and the reachable services whose contracts are not known, and why.

    `has_dead_letters`: a service has dead letters of the saga, which may be all that there is of it.
    `undeclared`: by service, the steps that it has entries of and does not declare.
    """

    timeline: Timeline
    progress: Progress
    without_contract: Mapping[str, str]
    has_dead_letters: bool
    undeclared: Mapping[str, Sequence[str]]


async def report_of(
    saga_id: str,
    saga_type: str | None,
    clients: Sequence[ServiceClient],
    *,
    declared: Callable[[str], Contract | None] = lambda _: None,
) -> SagaReport:
    """Read this saga and the contracts from all services.

    `declared` returns the contract of a service that does not return its own, if its declarations are at hand.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id, be it in different services.
    """
    seen, answered = await asyncio.gather(
        query_all(clients, lambda each: each.saga(saga_id, saga_type)), query_all(clients, lambda each: each.contract())
    )
    timeline = merged(saga_id, seen)
    known_here = {name: contract for name in answered.unreachable if (contract := declared(name))}
    contracts = answered.by_service | known_here
    missing = {
        name: why for name, why in answered.unreachable.items() if name in seen.by_service.keys() - contracts.keys()
    }
    has_dead_letters = any(view.dead_letters for view in seen.by_service.values())
    found = progress(timeline, Choreography(contracts.values()), seen.by_service)
    return SagaReport(timeline, found, missing, has_dead_letters, _undeclared(timeline, contracts))


def merged(saga_id: str, answers: Responses[SagaView]) -> Timeline:
    """Return the timeline that the services' views of a saga form together.

    Raises:
        AmbiguousSagaError: the views are of sagas of several types.
    """
    require_one_type(saga_id, answers.by_service.values())
    entries = {name: view.entries for name, view in answers.by_service.items()}
    return tell(saga_id, entries, unreachable=answers.unreachable)


async def detailed_timeline_of(saga_id: str, saga_type: str | None, clients: Sequence[ServiceClient]) -> Timeline:
    """Read a saga from all services, and return its timeline with the details of its entries.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id.
    """
    return merged(saga_id, await query_all(clients, lambda each: each.saga(saga_id, saga_type)))


async def timeline_of(saga: tuple[str | None, str], clients: Sequence[LogReader]) -> Timeline:
    """Read the entries of this type and id from all services, and merge them; None is any type."""
    saga_type, saga_id = saga
    answers = await query_all(clients, lambda client: client.entries(saga_id, saga_type=saga_type))
    return tell(saga_id, answers.by_service, unreachable=answers.unreachable)


async def timelines_of(sagas: Sequence[tuple[str | None, str]], clients: Sequence[LogReader]) -> list[Timeline]:
    """Return several sagas' timelines, in this order."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def read(saga: tuple[str | None, str]) -> Timeline:
        async with slots:
            return await timeline_of(saga, clients)

    return await asyncio.gather(*(read(saga) for saga in sagas))


async def latest_sagas(
    clients: Sequence[ServiceClient], limit: int, state: SagaState | None = None
) -> tuple[list[Timeline], Mapping[str, str]]:
    """Return the timelines of the sagas that moved last, and the unreachable services.

    One service alone may be behind: the inventory has a saga as pending that the payment has long refused. So each
    service lists the sagas that it moved last, and then all services are asked for those sagas.
    """
    answers = await query_all(clients, lambda each: _moved_last(each, Search(state=state), limit))
    reachable = [each for each in clients if each.service in answers.by_service]
    timelines = await timelines_of(_latest(answers.by_service.values(), limit), reachable)
    chosen = [timeline for timeline in timelines if timeline.entries and state in (None, timeline.state)]
    lost = {name: reason for timeline in timelines for name, reason in timeline.unreachable.items()}
    return chosen, answers.unreachable | lost


async def _moved_last(client: ServiceClient, which: Search, limit: int) -> list[FoundSaga]:
    """Return `limit` sagas, if there are so many; a page may come back short."""
    rows, cursor = await client.search(which, limit=limit)
    while cursor is not None and len(rows) < limit:
        more, cursor = await client.search(which, limit=limit - len(rows), cursor=cursor)
        rows += more
    return rows


def _latest(answers: Iterable[Sequence[FoundSaga]], limit: int) -> list[SagaKey]:
    moved: dict[SagaKey, datetime] = {}
    for row in (row for rows in answers for row in rows):
        saga = row.saga_type, row.saga_id
        moved[saga] = max(row.at, moved.get(saga, row.at))
    return sorted(moved, key=lambda saga: moved[saga], reverse=True)[:limit]


def _undeclared(timeline: Timeline, contracts: Mapping[str, Contract]) -> dict[str, list[str]]:
    declared = {(name, each.saga, each.name) for name, contract in contracts.items() for each in contract.handlers}
    found: dict[str, list[str]] = {}
    for entry in timeline.entries:
        service, step = entry.service, entry.step
        is_asked = service in contracts and entry.saga_type in contracts[service].coordinates
        is_gone = service in contracts and not is_asked and (service, entry.saga_type, step) not in declared
        if is_gone and step not in found.setdefault(service, []):
            found[service].append(step)
    return found
