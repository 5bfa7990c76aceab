"""The one way in which the toolkit shows a URL: without its password, whatever form the password has.

What a URL may show is listed; the rest is `***`. So a URL that is written wrongly, whose password stands where none is
looked for, shows less rather than more.
"""

from __future__ import annotations

import ipaddress
import re

HIDDEN = "***"
#: Parameters whose values are no secrets; those of others are hidden, whatever their names say.
_PLAIN_PARAMETERS = frozenset({
    "ssl", "sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user", "database", "passfile", "service",
    "servicefile", "krbsrvname", "gsslib", "target_session_attrs", "statement_cache_size", "timeout", "command_timeout",
    "prepared_statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size", "mode",
    "heartbeat", "connection_timeout", "channel_max", "frame_max", "locale", "cafile", "capath", "certfile", "keyfile",
    "no_verify_ssl",
})  # fmt: skip
#: What a value, a parameter's name and a login consist of where they are shown; a mistyped separator is none of it.
_PLAIN_VALUE, _PLAIN_NAME, _PLAIN_PATH = (re.compile(each) for each in (r"[\w.,:/~+-]*", r"[\w.-]*", r"[\w./-]*"))
#: One host with its port; several stand in a row, with commas between them.
_HOST = re.compile(r"([\w.-]*|\[[\w.:%]*\])(:\d*)?")
#: A URL within a text, up to what can't be part of it; and what ends the sentence behind it rather than the URL.
_WITHIN_TEXT, _BEHIND = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+"), ".,;:)]}"


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: scheme, login, hosts, path, and parameters that are known to be no secrets.

    The password reaches to the last `@`: people forget to encode what is special in it. Of an HTTP URL the login is
    hidden, too, since it may be a token.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _PLAIN_NAME.fullmatch(scheme.replace("+", "")):
        return url if _PLAIN_PATH.fullmatch(url) else HIDDEN
    if scheme == "sqlite":
        return f"sqlite://{_shown_path(rest)}"
    login, at, server = rest.rpartition("@")
    shown = _shown_login(login, may_show_user=not scheme.startswith("http")) if at else ""
    return f"{scheme}://{shown}{at}{_shown_server(server)}"


def without_passwords(text: str) -> str:
    """Return a text, an error's say, in which each URL is shown as `shown_url` shows it."""
    return _WITHIN_TEXT.sub(_shown_within, text) if "://" in text else text


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches this host: a loopback address, `localhost`, or a socket's directory."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost") or host.startswith(("/", "@"))


def _shown_within(found: re.Match[str]) -> str:
    url = found[0].rstrip(_BEHIND)
    return shown_url(url) + found[0][len(url) :]


def _shown_login(login: str, *, may_show_user: bool) -> str:
    user, colon, _ = login.partition(":")
    if not (may_show_user and _PLAIN_NAME.fullmatch(user)):
        return HIDDEN
    return f"{user}:{HIDDEN}" if colon else user


def _shown_server(server: str) -> str:
    """Return hosts, path and query; a password that lacks its `@` stands where a port does, and may go on behind it."""
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
