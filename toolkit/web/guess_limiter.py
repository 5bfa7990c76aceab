"""Limit how fast a token can be guessed: one guess at a time for each client, with a short queue.

A client is a network address, for IPv6 its /64. The guesses of one client delay no other client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.exceptions import HTTPException

#: Seconds between a client's wrong guess and its next one.
PAUSE = 0.5
#: The most guesses of one client, the current one included; a person has one.
_MOST_OF_ONE = 4
#: The most clients that guess at once, which is more than sign in at the same moment.
_MOST_CLIENTS = 1_000
#: Seconds after which a rejected client may try again: by then its queued guesses are done.
_RETRY_AFTER = 2


@dataclass(slots=True)
class _Queue:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class Guesses:
    """The queues of the clients that are guessing."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for the client's turn, and hold it within the block.

        Raises:
            HTTPException: 429, with the seconds until the client may try again.
        """
        name = network_of(client)
        queue = self._queues.get(name) or _Queue()
        if queue.length >= _MOST_OF_ONE or (queue.length == 0 and len(self._queues) >= _MOST_CLIENTS):
            detail = f"Too many guesses. Try again in {_RETRY_AFTER} seconds."
            raise HTTPException(429, detail, headers={"Retry-After": str(_RETRY_AFTER)})
        self._queues[name] = queue
        queue.length += 1
        try:
            async with queue.turn:
                yield
        finally:
            queue.length -= 1
            if queue.length == 0:
                del self._queues[name]


def network_of(client: str) -> str:
    """Return the part of an address that its client can't change."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    return str(ip_network(f"{address}/64", strict=False)) if isinstance(address, IPv6Address) else str(address)
