"""Runs an embedded service in a process of its own, and prints what that changed of the process."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import aiormq.connection
import sqlalchemy
import structlog
from opentelemetry import trace
from pamqp import decode


def facts() -> dict[str, Any]:
    """Return what belongs to the process, and not to a library in it."""
    return {
        "tracer provider": trace._TRACER_PROVIDER,
        "root handlers": [*logging.getLogger().handlers],
        "levels": {
            name: logging.getLogger(name).level for name in ("", "asyncio", "aio_pika", "aiormq", sqlalchemy.__name__)
        },
        "structlog": structlog.is_configured(),
        "signal handlers": [signal.getsignal(each) for each in signal.Signals],
        "collector": [gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()],
        "event loop policy": type(asyncio.get_event_loop_policy()).__name__,
        "exception hooks": [sys.excepthook, sys.unraisablehook],
    }


async def decoding() -> dict[str, str]:
    """Return how a connection of the application's own reads its frames, and what it does with malformed ones."""
    receiver: Any = aiormq.connection.FrameReceiver
    try:
        decode.METHODS["timestamp"](b"\xff" * 8)
    except (ValueError, OverflowError, OSError) as error:
        fault = type(error).__name__
    else:
        fault = "none"
    return {"reader": type(receiver(asyncio.StreamReader())).__module__, "a malformed time": fault}


async def main(url: str, exchange: str, directory: str) -> None:
    """Compare the process before the import, and after a service has run and stopped."""
    before, read_before = facts(), await decoding()
    from tests.unit.embedding.shop import shop
    from toolkit import Settings
    from toolkit.embedding import saga_lifespan

    settings = Settings(broker_url=url, exchange=exchange, data_dir=Path(directory))
    async with saga_lifespan(shop(), settings)(None):
        during, read_during = facts(), await decoding()
    after = facts()
    changed = [name for name in before if not before[name] == during[name] == after[name]]
    sys.stdout.write(json.dumps({"changed": changed, "decoding": [read_before, read_during]}))


asyncio.run(main(*sys.argv[1:]))
