"""Try well-known passwords at the broker, which lists no login with such a password."""

from __future__ import annotations

import asyncio
from urllib.parse import quote, urlsplit, urlunsplit

import aio_pika

from toolkit.transport.rabbitmq.acknowledgements import AWAY

_TIMEOUT = 5
#: The logins of a new broker, and of the toolkit's compose file.
_KNOWN = ("guest", "admin", "saga")


async def open_logins(url: str, login: str, names: list[str]) -> tuple[str, ...]:
    """Return the logins that their own name as a password opens."""
    tried = list(dict.fromkeys([login, *_KNOWN, *names]))
    are_open = await asyncio.gather(*(_is_open(url, each) for each in tried))
    return tuple(each for each, is_open in zip(tried, are_open, strict=True) if is_open)


async def _is_open(url: str, login: str) -> bool:
    parts = urlsplit(url)
    name = quote(login, safe="")
    server = parts.netloc.rpartition("@")[2]
    opened = urlunsplit(parts._replace(netloc=f"{name}:{name}@{server}"))
    try:
        async with asyncio.timeout(_TIMEOUT):
            connection = await aio_pika.connect(opened, timeout=_TIMEOUT)
            await connection.close()
    except AWAY as error:
        # A Close during the opening refuses the virtual host: the password was right.
        return "got <Connection.Close" in str(error)
    return True
