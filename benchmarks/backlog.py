"""How fast a process of the toolkit refuses expired events: the test of `make backlog`, with fewer of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

#: The events of the backlog, and the seconds that all may take, their publishing included.
EVENTS, _LONGEST = 20_000, 180.0
_TEST = "tests/end_to_end/test_backlog.py"


@dataclass(frozen=True, slots=True)
class Backlog:
    """A backlog that was drained."""

    events: int
    events_per_second: float
    peak_memory: float


def drain(broker_url: str, postgres_url: str, events: int = EVENTS) -> Backlog | None:
    """Have one process on PostgreSQL refuse this many expired events; None if it did not, after printing why."""
    environment = {"SAGA_TEST_AMQP_URL": broker_url, "SAGA_TEST_POSTGRES_URL": postgres_url, "BACKLOG": str(events)}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", _TEST, "-k", "postgresql"]
    try:
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=_LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"the backlog took more than {_LONGEST:.0f} seconds", file=sys.stderr)
        return None
    found = re.search(r"(\d+) events, (\d+) a second, (\d+) MiB", done.stdout)
    if not found or done.returncode:
        print(done.stdout[-2_000:], file=sys.stderr)
        return None
    return Backlog(*map(int, found.groups()))
