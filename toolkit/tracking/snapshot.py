"""The statistics of one service, current and cheap enough to be read each second."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict


class Snapshot(BaseModel):
    """One service's statistics, as far as it can see.

    - `is_counted`: False for the seconds after a start in which the sagas are counted; till then `by_state` and
      `by_type` are empty.
    - `rate`: sagas that ended per second, over the last minute; `p95`: how many seconds 19 of 20 took at most, of those
      that ended in the last five minutes, from their first entry here to their end here.
    - `overdue`: steps, as `/overdue` lists them. `outbox_oldest`: the age of the oldest row, in seconds.
    - `edges`: how often each event was emitted here in the last five minutes.
    - `ready`: whether broker, database and relay work; from a database, the database alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may return more

    service: str
    at: datetime
    is_counted: bool = True
    by_state: dict[str, int]
    by_type: dict[str, dict[str, int]]
    rate: float
    p95: float | None
    overdue: int
    dead_letters: int
    outbox: int
    outbox_oldest: float | None
    edges: dict[str, int]
    ready: dict[str, bool]


def lacks(ready: Mapping[str, bool]) -> list[str]:
    """Return which of broker, database and relay do not work."""
    return [part for part, is_there in ready.items() if not is_there]
