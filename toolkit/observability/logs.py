"""Logs: a constant sentence plus fields, as JSON for machines or coloured lines for people, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from toolkit.configuration.settings import Settings

#: The least level at which lines of verbose libraries are logged.
QUIET = {
    "aio_pika": "CRITICAL",
    "aiormq": "CRITICAL",
    "uvicorn": "WARNING",
    # These would log parameters, and URLs with their passwords.
    "aiosqlite": "CRITICAL",
    "httpx": "WARNING",
    "httpcore": "WARNING",
}

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


#: structlog's loggers that drop lines of the level info.
_WITHOUT_INFO = tuple(
    structlog.make_filtering_bound_logger(level) for level in (logging.WARNING, logging.ERROR, logging.CRITICAL)
)


def drops_info() -> bool:
    """Whether lines of the level info are dropped: their fields need not be put together then."""
    return structlog.get_config()["wrapper_class"] in _WITHOUT_INFO


def configure_logs(settings: Settings) -> None:
    """Send the toolkit's and all libraries' logs to standard error, in the settings' format and level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(settings.log_format)],
        )
    )
    level = settings.log_level.upper()
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # The broker's client logs every reconnection with a traceback; the toolkit logs it in one line.
    for library, least in QUIET.items():
        logging.getLogger(library).setLevel(least)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        # A cached logger keeps its first configuration: a later one, and structlog's capture_logs, would not reach it.
        cache_logger_on_first_use=False,
    )


def _renderers(log_format: str) -> list[Any]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the rich one shows all locals, passwords included
        )
    ]
