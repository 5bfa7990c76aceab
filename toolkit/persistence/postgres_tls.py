"""TLS for PostgreSQL: the server proves its identity before it receives a password.

The driver's default accepts plain text or any certificate, even over a network. Here a server on another machine must
present a certificate of a known authority for its own name, unless the URL sets another mode.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from toolkit.configuration.server_urls import CERTIFICATES, VERIFYING, hosts_of
from toolkit.errors import SettingsError
from toolkit.persistence.driver_errors import causes_of
from toolkit.urls import is_loopback

#: The directory where libpq and the driver look by default.
_HOME = Path("~/.postgresql")
#: The value of `sslrootcert` for the authorities that this machine trusts.
_SYSTEM = "system"
_CURE = (
    "name its authority's certificate by ?sslrootcert=FILE in the URL, or weaken the check: ?sslmode=require encrypts "
    "but accepts any certificate, ?sslmode=disable sends everything in plain text"
)


def with_tls(url: URL, options: dict[str, Any]) -> tuple[URL, dict[str, Any]]:
    """Return a URL and its driver's options, with a TLS context where the server must prove its identity.

    Raises:
        SettingsError: a certificate can't be read.
    """
    files: dict[str, str] = {name: options[name] for name in CERTIFICATES if name in options}
    options = {name: value for name, value in options.items() if name not in files}
    mode = url.query.get("ssl") or (VERIFYING[-1] if files or is_off_loopback(url) else None)
    if mode not in VERIFYING:
        return url, options
    return url.difference_update_query(["ssl"]), options | {"ssl": _context(str(mode), files)}


def is_off_loopback(url: URL) -> bool:
    """Whether a server is reached over a network; a URL without a host falls back to PGHOST, as in the driver."""
    hosts = hosts_of(url.render_as_string(hide_password=False)) or os.environ.get("PGHOST", "").split(",")
    return not all(is_loopback(host) for host in hosts if host)


def tls_fault(error: BaseException) -> str | None:
    """Return why a server's identity is not proven; None for any other error."""
    for each in causes_of(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({each.verify_message}); {_CURE}"
        if "rejected SSL upgrade" in str(each):
            return (
                "it speaks no TLS; enable TLS, or set ?sslmode=disable in the URL, which sends everything in plain text"
            )
    return None


def _context(mode: str, files: dict[str, str]) -> ssl.SSLContext:
    """Return a context that verifies the server's certificate, and with `verify-full` its name."""
    roots = files.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or _default_file("root.crt") or _SYSTEM
    certificate = files.get("sslcert") or os.environ.get("PGSSLCERT") or _default_file("postgresql.crt")
    key = files.get("sslkey") or os.environ.get("PGSSLKEY") or _default_file("postgresql.key")
    path = roots
    try:
        context = ssl.create_default_context(cafile=None if roots == _SYSTEM else roots)
        if certificate:
            path = certificate
            context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # includes TLS errors
        reason = error.strerror or str(error)
        raise SettingsError(
            f"the certificate {path} for PostgreSQL can't be used: {reason}; name a readable PEM file in the URL"
        ) from error
    context.check_hostname = mode == VERIFYING[-1]
    context.set_alpn_protocols(["postgresql"])
    return context


def _default_file(name: str) -> str | None:
    try:
        path = (_HOME / name).expanduser()
        return str(path) if path.is_file() else None
    except (OSError, RuntimeError):  # no home directory
        return None
