"""Trying the passwords that anybody would try first, at the broker itself: settings don't tell what else gets in."""

from __future__ import annotations

import asyncio
from urllib.parse import quote, urlsplit, urlunsplit

import aio_pika

from toolkit.transport.rabbitmq.acknowledgements import AWAY

_TIMEOUT = 5
#: Logins that brokers, and our compose file, come with.
_KNOWN = ("guest", "admin", "saga")


async def open_logins(url: str, login: str, names: list[str]) -> tuple[str, ...]:
    """Return the logins whose password is their name, and that got in by it."""
    tried = list(dict.fromkeys([login, *_KNOWN, *names]))
    got_in = await asyncio.gather(*(_gets_in(url, each) for each in tried))
    return tuple(each for each, is_in in zip(tried, got_in, strict=True) if is_in)


async def _gets_in(url: str, login: str) -> bool:
    parts = urlsplit(url)
    name = quote(login, safe="")
    server = parts.netloc.rpartition("@")[2]
    try:
        async with asyncio.timeout(_TIMEOUT):
            connection = await aio_pika.connect(
                urlunsplit(parts._replace(netloc=f"{name}:{name}@{server}")), timeout=_TIMEOUT
            )
            await connection.close()
    except AWAY as error:
        # A Close while the connection opens is the no to the virtual host: the password was right.
        return "got <Connection.Close" in str(error)
    return True
