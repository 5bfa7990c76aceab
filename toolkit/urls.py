"""Show URLs without their passwords; the toolkit shows no URL in another way.

The parts that may be shown are listed; the rest becomes `***`. A malformed URL, whose password is in an unexpected
place, therefore shows less rather than more.
"""

from __future__ import annotations

import ipaddress
import re

HIDDEN = "***"
#: Parameters whose values are not secrets; all other values are hidden.
_PLAIN_PARAMETERS = frozenset({
    "ssl", "sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user", "database", "passfile", "service",
    "servicefile", "krbsrvname", "gsslib", "target_session_attrs", "statement_cache_size", "timeout", "command_timeout",
    "prepared_statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size", "mode",
    "heartbeat", "connection_timeout", "channel_max", "frame_max", "locale", "cafile", "capath", "certfile", "keyfile",
    "no_verify_ssl", "schema",
})  # fmt: skip
#: The characters of values, and of names and logins that are shown; a mistyped separator is not among them.
_PLAIN_VALUE, _PLAIN_NAME = (re.compile(each) for each in (r"[\w.,:/~+-]*", r"[\w.-]*"))
#: The only texts without a scheme that are shown; any other may be a secret in the wrong variable or file.
_NO_SECRETS = ("embedded", "")
#: One host with its port; a URL may have several, separated by commas.
_HOST = re.compile(r"([\w.-]*|\[[\w.:%]*\])(:\d*)?")


def shown_url(url: str) -> str:
    """Return a URL for display: scheme, login, hosts, path, and parameters that are not secrets.

    The password reaches to the last `@`, since its special characters are often not encoded. The login of an HTTP URL
    is hidden, too: it may be a token.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _PLAIN_NAME.fullmatch(scheme.replace("+", "")):
        return url if url in _NO_SECRETS else HIDDEN
    if scheme == "sqlite":
        return f"sqlite://{_shown_path(rest)}"
    login, at, server = rest.rpartition("@")
    shown = _shown_login(login, may_show_user=not scheme.startswith("http")) if at else ""
    return f"{scheme}://{shown}{at}{_shown_server(server)}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host: a loopback address, `localhost`, or a socket's directory."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost") or host.startswith(("/", "@"))


def _shown_login(login: str, *, may_show_user: bool) -> str:
    user, colon, _ = login.partition(":")
    if not (may_show_user and _PLAIN_NAME.fullmatch(user)):
        return HIDDEN
    return f"{user}:{HIDDEN}" if colon else user


def _shown_server(server: str) -> str:
    """Return hosts, path and query; a password without its `@` is in the port's place, and may extend beyond it."""
    end = min((server.index(each) for each in "/?#" if each in server), default=len(server))
    hosts, behind = server[:end], server[end:]
    if all(_HOST.fullmatch(each) for each in hosts.split(",")):
        return hosts + _shown_path(behind)
    host, colon, _ = hosts.partition(":")
    return f"{host}:{HIDDEN}" if colon and _PLAIN_NAME.fullmatch(host) else HIDDEN


def _shown_path(path_and_query: str) -> str:
    whole, fragment, _ = path_and_query.partition("#")
    path, mark, query = whole.partition("?")
    pairs = "&".join(_shown_pair(each) for each in query.split("&"))
    return f"{path}{mark}{pairs}" + (f"#{HIDDEN}" if fragment else "")


def _shown_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals or not _PLAIN_NAME.fullmatch(name):
        return HIDDEN if pair else ""
    is_plain = name in _PLAIN_PARAMETERS and _PLAIN_VALUE.fullmatch(value)
    return f"{name}={value if is_plain else HIDDEN}"
