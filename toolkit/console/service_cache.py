"""Query services in parallel with a short timeout, sharing requests in flight.

Pages that are loaded at the same time share answers. A request to a slow service goes on in the background, for the
next load of the page; an unreachable service is named, and an old answer is not shown as a new one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from toolkit.client import fan_out
from toolkit.client.fan_out import Responses
from toolkit.client.service_client import ServiceClient
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.errors import NotAllowedError, UnreachableError

T = TypeVar("T")

#: The characters that services reject in a query, and the end of the sentence that reports it.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NO_TEXT = "contains a control character, which no id and no name has."
Query = Callable[[ServiceClient], Awaitable[T]]

#: How long a page waits for a service, in seconds; and its live part, which is requested again soon.
MAX_WAIT, LIVE_MAX_WAIT = 2.5, 0.8
#: How long an answer is fresh, in seconds: less than the interval of live parts.
_FRESH = 0.25
#: How long the last answer of a slow service replaces the next one, in seconds.
_RECENT = 5.0
#: How long a contract is valid, in seconds: it changes with a deployment only.
_CONTRACT_VALID = 15.0
#: How often a missing contract is requested, in seconds.
_RETRY_EVERY = 2.0


@dataclass(slots=True)
class _Request:
    """A query to one service: the task that waits for the answer, and the last answer that came."""

    task: asyncio.Task[Any]
    started_at: float
    answer: Any = None
    answered_at: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the answer is pending or can be shared."""
        return not self.task.done() or time.monotonic() - self.started_at < _FRESH

    @property
    def recent_answer(self) -> Any:
        """The last answer, if it is recent."""
        is_recent = self.answered_at is not None and time.monotonic() - self.answered_at < _RECENT
        return self.answer if is_recent else None


def is_queryable(text: str) -> bool:
    """Whether services accept the text in a query; they reject what no database stores."""
    return not _NO_TEXT.search(text)


class ServiceCache:
    """The services that the console reads, in the order of its command line."""

    def __init__(self, clients: Sequence[ServiceClient]) -> None:
        self.clients = list(clients)
        self._requests: dict[tuple[str, Hashable], _Request] = {}
        self._contracts: dict[str, tuple[float, Contract]] = {}

    @property
    def names(self) -> list[str]:
        """The services' names."""
        return [each.service for each in self.clients]

    def named(self, name: str) -> ServiceClient | None:
        """Return the client of one service, or None where there is no such service."""
        return next((each for each in self.clients if each.service == name), None)

    async def query(
        self, what: Hashable, query: Query[T], *, of: Sequence[str] | None = None, max_wait: float = MAX_WAIT
    ) -> Responses[T]:
        """Send a query to all services, or to those named; equal values of `what` share an answer."""
        clients = [each for each in self.clients if of is None or each.service in of]
        found = await asyncio.gather(*(self._one(each, what, query, max_wait) for each in clients))
        return Responses.of(zip([each.service for each in clients], found, strict=True))

    async def choreography(self, *, max_wait: float = MAX_WAIT) -> tuple[Choreography, dict[str, str]]:
        """Return the choreography of all known contracts, and why the others are missing, by service.

        The last contract of an unreachable service is used further: its steps are shown, their status as unknown.
        """
        now = time.monotonic()
        known = [name for name, (at, _) in self._contracts.items() if now - at < _CONTRACT_VALID]
        wanted = [name for name in self.names if name not in known]
        answers = await self.query("contract", lambda each: each.contract(), of=wanted, max_wait=max_wait)
        self._contracts |= {name: (now, contract) for name, contract in answers.by_service.items()}
        contracts = [self._contracts[name][1] for name in self.names if name in self._contracts]
        return Choreography(contracts), {
            name: why for name, why in answers.unreachable.items() if name not in self._contracts
        }

    async def load_contracts(self) -> None:
        """Request the contracts until each service has answered once."""
        while (await self.choreography())[1]:  # noqa: ASYNC110 -- a service does not announce itself
            await asyncio.sleep(_RETRY_EVERY)

    async def close(self) -> None:
        """Cancel the requests in flight, and close the connections."""
        tasks = [each.task for each in self._requests.values() if not each.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self.clients:
            await each.close()

    async def _one(
        self, client: ServiceClient, what: Hashable, query: Query[T], max_wait: float
    ) -> T | UnreachableError:
        request = self._request(client, what, query)
        await asyncio.wait({request.task}, timeout=max_wait)
        if request.task.done():
            return cast("T | UnreachableError", request.task.result())
        if request.recent_answer is not None:
            return cast("T", request.recent_answer)
        return UnreachableError(f"no answer within {max_wait:g} s")

    def _request(self, client: ServiceClient, what: Hashable, query: Query[T]) -> _Request:
        """Return the fresh request for the same thing, or start one."""
        key = (client.service, what)
        before = self._requests.get(key)
        if before and before.is_fresh:
            return before
        self._forget_old()
        request = _Request(asyncio.create_task(_answer(client, query)), time.monotonic())
        if before:
            request.answer, request.answered_at = before.answer, before.answered_at
        request.task.add_done_callback(lambda task: _keep(request, task))
        self._requests[key] = request
        return request

    def _forget_old(self) -> None:
        """Forget answers that are too old to be used."""
        now = time.monotonic()
        old = [key for key, each in self._requests.items() if each.task.done() and now - each.started_at > 2 * _RECENT]
        for key in old:
            del self._requests[key]


async def _answer(client: ServiceClient, query: Query[T]) -> T | UnreachableError:
    try:
        return await fan_out.query_one(client, query)
    except NotAllowedError as error:
        return UnreachableError(str(error))


def _keep(request: _Request, task: asyncio.Task[Any]) -> None:
    """Keep the answer, unless the service was unreachable."""
    if not task.cancelled() and task.exception() is None and not isinstance(task.result(), UnreachableError):
        request.answer, request.answered_at = task.result(), time.monotonic()
