"""Unreadable rows of the toolkit's own tables: each is set aside alone, so that it stops no other row.

This release writes no such row; a manual change, a restored backup or another release may. An operator repairs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter
from sqlalchemy import Row
from structlog.contextvars import get_contextvars

log = structlog.get_logger("toolkit")

T = TypeVar("T")

#: A row that is set aside is read again after so long: it may be repaired by then, and slows no sweep down.
REST = timedelta(days=1)

rows_set_aside = Counter(
    "saga_rows_set_aside_total", "Rows of the toolkit's tables that could not be read.", ("service", "table")
)


def readable(table: str, rows: Iterable[Row[Any]], read: Callable[[Row[Any]], T]) -> tuple[list[T], list[Row[Any]]]:
    """Return these rows as objects, and the unreadable rows, which are logged."""
    sound, broken = [], []
    for row in rows:
        try:
            sound.append(read(row))
        except Exception as error:  # noqa: BLE001 -- whatever a row holds, the next one must be read
            set_aside(table, error, **_keys(row))
            broken.append(row)
    return sound, broken


def set_aside(table: str, error: Exception, **keys: object) -> None:
    """Count and log a row that can't be read."""
    rows_set_aside.labels(get_contextvars().get("service", ""), table).inc()
    cure = f"repair the row of {table} by hand, or delete it once its saga is known to have ended"
    log.error("row can't be read and is set aside", table=table, error=str(error), cure=cure, **keys)


def headers_of(text: str) -> dict[str, Any]:
    """Parse a row's headers.

    Raises:
        ValueError: they are no JSON object.
    """
    headers = json.loads(text)
    if not isinstance(headers, dict):
        raise ValueError("the headers are no JSON object")
    return headers


def _keys(row: Row[Any]) -> dict[str, object]:
    return {name: row._mapping[name] for name in ("id", "saga_type", "saga_id", "step") if name in row._mapping}
