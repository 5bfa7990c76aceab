"""Asking services for a page: all at once, each with little patience, and none twice for the same thing.

Who looks at the same page at the same time shares the answers. A service that is slow is asked on in the background, so
that the next look may have its answer; one that can't be asked is named, and what it said a while ago is not passed off
as new.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from toolkit.client import fan_out
from toolkit.client.fan_out import Answers
from toolkit.client.service_client import ServiceClient
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.errors import NotAllowedError, UnreachableError

T = TypeVar("T")

#: What no service bears to be asked for, and a sentence's end that says so.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NO_TEXT = "holds a character that can't be printed, which no id and no name has."
Question = Callable[[ServiceClient], Awaitable[T]]

#: How long a page waits for a service, in seconds; and its live part, which is asked for again anyhow.
PATIENCE, LIVE_PATIENCE = 2.5, 0.8
#: How long an answer is as good as new, in seconds: less than a live part's beat.
_FRESH = 0.25
#: How long a slow service's last answer may stand in for the one that is still to come, in seconds.
_STAND_IN = 5.0
#: How long a contract holds, in seconds: a service changes it by being deployed anew.
_CONTRACT_HOLDS = 15.0
#: How often a service that has not told its contract yet is asked for it, in seconds.
_LEARN_EVERY = 2.0


@dataclass(slots=True)
class _Asked:
    """A question to one service: the task that waits for the answer, and the last answer that came."""

    task: asyncio.Task[Any]
    asked_at: float
    answer: Any = None
    answered_at: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether its answer can be shared, or still comes."""
        return not self.task.done() or time.monotonic() - self.asked_at < _FRESH

    @property
    def stand_in(self) -> Any:
        """The last answer, if it came a moment ago."""
        is_recent = self.answered_at is not None and time.monotonic() - self.answered_at < _STAND_IN
        return self.answer if is_recent else None


def can_be_asked(text: str) -> bool:
    """Whether services can be asked for that text; they refuse what no database would keep."""
    return not _NO_TEXT.search(text)


class Services:
    """The services that the console reads, in the order in which they were named."""

    def __init__(self, clients: Sequence[ServiceClient]) -> None:
        self.clients = list(clients)
        self._asked: dict[tuple[str, Hashable], _Asked] = {}
        self._contracts: dict[str, tuple[float, Contract]] = {}

    @property
    def names(self) -> list[str]:
        """The services' names."""
        return [each.service for each in self.clients]

    def named(self, name: str) -> ServiceClient | None:
        """Return the client of one service, or None where there is no such service."""
        return next((each for each in self.clients if each.service == name), None)

    async def ask(
        self, what: Hashable, question: Question[T], *, of: Sequence[str] | None = None, patience: float = PATIENCE
    ) -> Answers[T]:
        """Ask all services, or those named, the same; `what` tells one question from another."""
        asked = [each for each in self.clients if of is None or each.service in of]
        found = await asyncio.gather(*(self._one(each, what, question, patience) for each in asked))
        return Answers.of(zip([each.service for each in asked], found, strict=True))

    async def choreography(self, *, patience: float = PATIENCE) -> tuple[Choreography, dict[str, str]]:
        """Return what the services hear and say, and of which nothing is known, and why.

        What a service said before it went away still holds: its steps are shown, as ones whose state nobody knows.
        """
        now = time.monotonic()
        known = [name for name, (at, _) in self._contracts.items() if now - at < _CONTRACT_HOLDS]
        wanted = [name for name in self.names if name not in known]
        answers = await self.ask("contract", lambda each: each.contract(), of=wanted, patience=patience)
        self._contracts |= {name: (now, contract) for name, contract in answers.by_service.items()}
        contracts = [self._contracts[name][1] for name in self.names if name in self._contracts]
        return Choreography(contracts), {
            name: why for name, why in answers.unreachable.items() if name not in self._contracts
        }

    async def learn(self) -> None:
        """Ask all services what they hear and say until each has told it once."""
        while (await self.choreography())[1]:  # noqa: ASYNC110 -- a service tells nobody that it is there
            await asyncio.sleep(_LEARN_EVERY)

    async def close(self) -> None:
        """Stop whatever is still asked, and give up the connections."""
        tasks = [each.task for each in self._asked.values() if not each.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self.clients:
            await each.close()

    async def _one(
        self, client: ServiceClient, what: Hashable, question: Question[T], patience: float
    ) -> T | UnreachableError:
        asked = self._under_way(client, what, question)
        await asyncio.wait({asked.task}, timeout=patience)
        if asked.task.done():
            return cast("T | UnreachableError", asked.task.result())
        if asked.stand_in is not None:
            return cast("T", asked.stand_in)
        return UnreachableError(f"no answer within {patience:g} s")

    def _under_way(self, client: ServiceClient, what: Hashable, question: Question[T]) -> _Asked:
        """Return the question as it was asked a moment ago, or ask it now."""
        key = (client.service, what)
        before = self._asked.get(key)
        if before and before.is_fresh:
            return before
        self._forget_old()
        asked = _Asked(asyncio.create_task(_answer(client, question)), time.monotonic())
        if before:
            asked.answer, asked.answered_at = before.answer, before.answered_at
        asked.task.add_done_callback(lambda task: _keep(asked, task))
        self._asked[key] = asked
        return asked

    def _forget_old(self) -> None:
        """Let go of answers that nobody will want again."""
        now = time.monotonic()
        old = [key for key, each in self._asked.items() if each.task.done() and now - each.asked_at > 2 * _STAND_IN]
        for key in old:
            del self._asked[key]


async def _answer(client: ServiceClient, question: Question[T]) -> T | UnreachableError:
    try:
        return await fan_out.ask(client, question)
    except NotAllowedError as error:
        return UnreachableError(str(error))


def _keep(asked: _Asked, task: asyncio.Task[Any]) -> None:
    """Keep the answer, if it is one."""
    if not task.cancelled() and task.exception() is None and not isinstance(task.result(), UnreachableError):
        asked.answer, asked.answered_at = task.result(), time.monotonic()
