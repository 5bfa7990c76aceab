"""One query to several services in parallel: the response of each, and why others gave none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from toolkit.client.service_client import LogReader
from toolkit.errors import UnreachableError

#: How long one service may take to respond, in seconds; a person is waiting.
RESPONSE_TIMEOUT = 5

T = TypeVar("T")
#: A kind of client; a query to service clients may use all of their methods.
C = TypeVar("C", bound=LogReader)


@dataclass(frozen=True, slots=True)
class Responses(Generic[T]):
    """The responses of several services, by service, and why the other services gave none."""

    by_service: dict[str, T]
    unreachable: dict[str, str]

    @classmethod
    def of(cls, responses: Iterable[tuple[str, T | UnreachableError]]) -> Responses[T]:
        """Part the responses, given with their services' names, from the failures."""
        named = list(responses)
        return cls(
            by_service={name: response for name, response in named if not isinstance(response, UnreachableError)},
            unreachable={name: str(response) for name, response in named if isinstance(response, UnreachableError)},
        )


async def query_all(
    clients: Iterable[C], query: Callable[[C], Awaitable[T]], *, within: float | None = RESPONSE_TIMEOUT
) -> Responses[T]:
    """Query all services in parallel; each has `within` seconds."""
    clients = list(clients)
    responses = await asyncio.gather(*(query_one(client, query, within=within) for client in clients))
    return Responses.of(zip((client.service for client in clients), responses, strict=True))


async def query_one(
    client: C, query: Callable[[C], Awaitable[T]], *, within: float | None = RESPONSE_TIMEOUT
) -> T | UnreachableError:
    """Return the response, or the error where the service can't be reached within that many seconds."""
    try:
        async with asyncio.timeout(within):
            return await query(client)
    except UnreachableError as error:
        return error
    except TimeoutError:
        return UnreachableError(f"no answer within {within} seconds")
