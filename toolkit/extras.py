"""The extras of the distribution: a feature without its packages fails with the command that installs them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from toolkit.errors import MissingExtraError

#: The modules that each extra installs, as far as the toolkit imports them; pyproject.toml has the packages.
EXTRAS = {
    "rabbitmq": ("aio_pika", "faststream"),
    "postgres": ("asyncpg",),
    "sqlite": ("aiosqlite",),
    "client": ("httpx",),
    "cli": ("rich", "typer", "alembic", "httpx"),
    "api": ("starlette", "uvicorn"),
    "console": ("jinja2", "python_multipart", "starlette", "uvicorn", "rich", "typer", "alembic", "httpx"),
    "otel": ("opentelemetry.sdk", "opentelemetry.exporter"),
}


def require(extra: str, feature: str) -> None:
    """Check that an extra's packages are installed, before a feature imports them.

    Raises:
        MissingExtraError: one is not.
    """
    for module in EXTRAS[extra]:
        if not _is_installed(module):
            raise MissingExtraError(feature, extra, module)


def _is_installed(module: str) -> bool:
    if sys.modules.get(module):
        return True
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that holds it is missing
        return False
