"""One question to several services in parallel: what each answered, and why others did not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from toolkit.client.service_client import LogReader
from toolkit.errors import UnreachableError

#: How long one service may take to answer, in seconds; a person is waiting.
ANSWER_TIMEOUT = 5

T = TypeVar("T")
#: A kind of client; a question to service clients may use all of their methods.
C = TypeVar("C", bound=LogReader)


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What several services answered, by service, and why others did not."""

    by_service: dict[str, T]
    unreachable: dict[str, str]

    @classmethod
    def of(cls, answers: Iterable[tuple[str, T | UnreachableError]]) -> Answers[T]:
        """Part the answers, given with their services' names, from the failures."""
        named = list(answers)
        return cls(
            by_service={name: answer for name, answer in named if not isinstance(answer, UnreachableError)},
            unreachable={name: str(answer) for name, answer in named if isinstance(answer, UnreachableError)},
        )


async def ask_all(
    clients: Iterable[C], question: Callable[[C], Awaitable[T]], *, within: float | None = ANSWER_TIMEOUT
) -> Answers[T]:
    """Ask all services in parallel; each has `within` seconds."""
    clients = list(clients)
    answers = await asyncio.gather(*(ask(client, question, within=within) for client in clients))
    return Answers.of(zip((client.service for client in clients), answers, strict=True))


async def ask(
    client: C, question: Callable[[C], Awaitable[T]], *, within: float | None = ANSWER_TIMEOUT
) -> T | UnreachableError:
    """Return the answer, or the error where the service can't be reached within that many seconds."""
    try:
        async with asyncio.timeout(within):
            return await question(client)
    except UnreachableError as error:
        return error
    except TimeoutError:
        return UnreachableError(f"no answer within {within} seconds")
