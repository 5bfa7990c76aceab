"""Under which names a server is asked.

A web page may point a name of its own at any address (DNS rebinding), and then read what answers there as if it were
its own site's. The Host header has that name, so a server refuses names that it does not know. An address is no name.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit


def name_in(host: str) -> str:
    """Return the name in a Host header, without its port; nothing where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def answers_to(name: str, names: Collection[str]) -> bool:
    """Whether a server that has these names answers to that one: to `localhost` and any address, too.

    A name `*.shop.example` stands for all below `shop.example`.
    """
    try:
        ip_address(name)
    except ValueError:
        parts = name.split(".")
        wider = {f"*.{'.'.join(parts[number:])}" for number in range(1, len(parts))}
        return name == "localhost" or any(each in names for each in {name} | wider)
    return True
