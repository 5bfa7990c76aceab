"""The URLs of brokers and databases: their validation, and the options that a driver takes from them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: The parameters that PostgreSQL's driver takes from a URL: numbers, and texts. Its other options have no text form.
_DRIVER_NUMBERS: dict[str, type[float]] = {
    "statement_cache_size": int,
    "prepared_statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
    "timeout": float,
    "command_timeout": float,
}
#: The files by which server and client authenticate each other.
CERTIFICATES = ("sslrootcert", "sslcert", "sslkey")
_DRIVER_TEXTS = {
    *("host", "port", "user", "password", "database", "passfile", "service", "servicefile", "krbsrvname", "gsslib"),
    *("ssl", "sslmode", "target_session_attrs", *CERTIFICATES),
}
#: The modes that verify the server's identity before they send anything.
VERIFYING = ("verify-ca", "verify-full")
_TLS = ("disable", "allow", "prefer", "require", *VERIFYING)
#: The parameters that have a fixed set of values.
_DRIVER_WORDS = {
    "ssl": _TLS,
    "sslmode": _TLS,
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}
#: A silent connection is detected after three heartbeats; a longer interval, in seconds, is useless. And its digits.
_SLOWEST_HEARTBEAT, _DIGITS = 600, 9
#: The largest number that a parameter may have.
_MOST = 1_000_000
#: The schema of the toolkit's tables, as PostgreSQL's identifiers are without quotes, in any case.
SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
#: The error for an invalid port, which is not repeated: it may be the rest of a password.
_NO_PORT = "its port is not a number up to 65535, or special characters of its password (@ : / ? #) are not encoded"


def has_sound_address(url: str) -> str:
    """Return the URL of a server if its address is valid.

    Raises:
        ValueError: the host or the port is invalid.
    """
    try:
        port = urlsplit(url).port
    except ValueError:  # the library's own text repeats the invalid port, which may be a part of the password
        raise ValueError(_NO_PORT) from None
    if port == 0:
        raise ValueError("nothing listens on port 0")
    return url


def has_heartbeat(url: str) -> str:
    """Return the broker's URL if its heartbeat can detect a silent broker.

    Raises:
        ValueError: the heartbeat is zero, too long, or not a number of seconds.
    """
    for beat in parse_qs(urlsplit(url).query, keep_blank_values=True).get("heartbeat", []):
        if not (beat.isascii() and beat.isdecimal() and 1 <= int(beat[:_DIGITS]) <= _SLOWEST_HEARTBEAT):
            raise ValueError(f"heartbeat={beat}: give whole seconds from 1 to {_SLOWEST_HEARTBEAT}, or leave it out")
    return url


def is_database_url(url: str) -> str:
    """Return the URL of a database if its driver accepts it.

    Raises:
        ValueError: it does not; the text names the invalid part.
    """
    from sqlalchemy.engine import make_url  # a slow import that most settings do not need
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("it is not a URL") from None
    except ValueError:
        raise ValueError(_NO_PORT) from None
    if parsed.port is not None and not 1 <= parsed.port <= 65_535:
        raise ValueError(_NO_PORT)
    if parsed.drivername == "postgresql":
        driver_options(schema_in(parsed)[0])
    elif parsed.query:
        raise ValueError(f"SQLite's address takes no parameters; leave out {', '.join(sorted(parsed.query))}")
    return url


DatabaseUrl = Annotated[str, Field(pattern=r"^(sqlite:///|postgresql://).+"), AfterValidator(is_database_url)]


def schema_in(url: URL) -> tuple[URL, str | None]:
    """Return a PostgreSQL URL without the schema of the toolkit's tables, and that schema; None where it names none.

    Raises:
        ValueError: the schema is no plain name.
    """
    schema = url.query.get("schema")
    if schema is None:
        return url, None
    if not isinstance(schema, str) or not SCHEMA.fullmatch(schema):
        raise ValueError("the parameter schema is a name of up to 63 letters, digits and underscores, given once")
    return url.difference_update_query(["schema"]), schema


def driver_options(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return a PostgreSQL URL without the parameters that the driver takes as options, and these options.

    Raises:
        ValueError: a parameter is unknown, or its value is invalid.
    """
    texts, options = dict(url.query), {}
    if unknown := sorted(texts.keys() - _DRIVER_NUMBERS.keys() - _DRIVER_TEXTS):
        known = ", ".join(sorted(_DRIVER_NUMBERS.keys() | _DRIVER_TEXTS))
        raise ValueError(f"the driver takes no parameter {', '.join(unknown)}; it takes {known}")
    for name in texts.keys() & _DRIVER_WORDS.keys():
        if texts[name] not in _DRIVER_WORDS[name]:
            raise ValueError(f"the driver's parameter {name} is one of {', '.join(_DRIVER_WORDS[name])}, given once")
    for name in texts.keys() & _DRIVER_NUMBERS.keys():
        options[name] = _number(name, texts.pop(name), _DRIVER_NUMBERS[name])
    mode = texts.pop("sslmode", texts.get("ssl"))  # asyncpg's name for libpq's sslmode is ssl
    if mode is not None:
        texts["ssl"] = mode
    given = {name: texts.pop(name) for name in CERTIFICATES if name in texts}
    if not all(isinstance(path, str) for path in given.values()):
        raise ValueError(f"the driver's parameters {', '.join(given)} are files, each given once")
    if given and mode not in (None, *VERIFYING):
        raise ValueError(f"{', '.join(given)} has no effect with sslmode={mode}: use verify-full, or leave it out")
    return url.set(query=texts), options | given


def _number(name: str, value: str | tuple[str, ...], kind: type[float]) -> float:
    try:
        number = kind(value)  # type: ignore[arg-type]  # a parameter given twice is a tuple, which raises TypeError
    except (TypeError, ValueError) as error:
        raise ValueError(f"the driver's parameter {name} is a number, given once") from error
    least = 1 if kind is float else 0  # a timeout of zero never succeeds
    if not least <= number <= _MOST:
        raise ValueError(f"the driver's parameter {name} lies between {least} and {_MOST}")
    return number


def hosts_of(url: str) -> list[str]:
    """Return the hosts of a server's URL, those in its query included; empty where it names none."""
    place = urlsplit(url)
    named = place.netloc.rpartition("@")[2].split(",")
    asked = [host for each in parse_qs(place.query).get("host", []) for host in each.split(",")]
    return [host for each in (*named, *asked) if (host := _host_of(each))]


def login_of(url: str) -> tuple[str, str]:
    """Return the login and the password of a server's URL, its query first; empty where it has none."""
    place = urlsplit(url)
    login, _, _ = place.netloc.rpartition("@")
    user, _, password = login.partition(":")
    query = parse_qs(place.query)
    return query.get("user", [unquote(user)])[-1], query.get("password", [unquote(password)])[-1]


def _host_of(place: str) -> str:
    """Return the host of `host:port`, `[host]:port` or a socket's directory."""
    if place.startswith("/"):
        return place
    return place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
