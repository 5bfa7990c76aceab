"""The host names under which a server answers, against DNS rebinding.

A web page may point a name of its own at any address, and then read the answers from there as its own site's. The Host
header has that name, so a server rejects names that it does not know. Addresses are always accepted.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

#: A name or an address, of IPv6 in brackets, and a port; a URL's parser also accepts a login before them.
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.%]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


def name_in(host: str) -> str:
    """Return the name in a Host header, without the port; empty where the header has another form."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""


def names_in(setting: str) -> list[str]:
    """Return the names of `SAGA_HTTP_NAMES`."""
    return [name for each in setting.split(",") if (name := each.strip())]


def answers_to(name: str, names: Collection[str]) -> bool:
    """Whether a server with these names answers to that one; each answers to `localhost` and any address.

    A name `*.shop.example` covers all names below `shop.example`.
    """
    try:
        ip_address(name)
    except ValueError:
        parts = name.split(".")
        wider = {f"*.{'.'.join(parts[number:])}" for number in range(1, len(parts))}
        return name == "localhost" or any(each in names for each in {name} | wider)
    return True
