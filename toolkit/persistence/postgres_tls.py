"""How a PostgreSQL server proves who it is, before it learns a password.

The driver's own default takes what it can get: on a network, the plain text, or any certificate. Here a server that is
not on this machine has to show a certificate of a known authority for its own name, unless the URL says otherwise.
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

#: Where libpq and the driver look, unless they are told otherwise.
_HOME = Path("~/.postgresql")
#: What `sslrootcert` says for the authorities that this machine trusts.
_SYSTEM = "system"
_CURE = (
    "give its authority's certificate by ?sslrootcert=FILE in the URL, or weaken it by name: ?sslmode=require encrypts "
    "and takes any certificate, ?sslmode=disable sends all in the clear"
)


def with_tls(url: URL, options: dict[str, Any]) -> tuple[URL, dict[str, Any]]:
    """Return a URL and its driver's options with a TLS context, where the server has to prove who it is.

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
    """Whether a server is reached by a network; without a host in the URL PGHOST counts, as for the driver."""
    hosts = hosts_of(url.render_as_string(hide_password=False)) or os.environ.get("PGHOST", "").split(",")
    return not all(is_loopback(host) for host in hosts if host)


def tls_fault(error: BaseException) -> str | None:
    """Return what is wrong with how a server proves who it is; None where an error tells of something else."""
    for each in causes_of(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({each.verify_message}); {_CURE}"
        if "rejected SSL upgrade" in str(each):
            return "it speaks no TLS; switch that on, or name ?sslmode=disable in the URL, which sends all in the clear"
    return None


def _context(mode: str, files: dict[str, str]) -> ssl.SSLContext:
    """Return what verifies the server's certificate, and with `verify-full` its name."""
    roots = files.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or _there("root.crt") or _SYSTEM
    certificate = files.get("sslcert") or os.environ.get("PGSSLCERT") or _there("postgresql.crt")
    key = files.get("sslkey") or os.environ.get("PGSSLKEY") or _there("postgresql.key")
    path = roots
    try:
        context = ssl.create_default_context(cafile=None if roots == _SYSTEM else roots)
        if certificate:
            path = certificate
            context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # those of TLS are among them
        told = error.strerror or str(error)
        raise SettingsError(
            f"the certificate {path} for PostgreSQL can't be used: {told}; name a readable PEM file in the URL"
        ) from error
    context.check_hostname = mode == VERIFYING[-1]
    context.set_alpn_protocols(["postgresql"])
    return context


def _there(name: str) -> str | None:
    try:
        path = (_HOME / name).expanduser()
        return str(path) if path.is_file() else None
    except (OSError, RuntimeError):  # there is no home
        return None
