"""A glance at one service: figures that are right now, and cheap enough to be asked for each second."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict


class Snapshot(BaseModel):
    """One service's figures, as far as it can see.

    - `is_counted`: False for the seconds after a start in which the sagas are counted; till then `by_state` and
      `by_type` are empty, and mean nothing.
    - `rate`: sagas that ended per second, over the last minute; `p95`: how many seconds 19 of 20 took at most, of those
      that ended in the last five minutes, from their first entry here to their end here.
    - `overdue`: steps, as `/overdue` lists them. `outbox_oldest`: the age of the oldest row, in seconds.
    - `edges`: how often each event was emitted here in the last five minutes.
    - `ready`: what of broker, database and relay is there; read from a database, only that.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may tell more

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
    """Return what of broker, database and relay is not there."""
    return [part for part, is_there in ready.items() if not is_there]
