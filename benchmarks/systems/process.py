"""What each system's process has in common: its argument, its end by SIGTERM, and its counters."""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from benchmarks.counters import COUNTS, switch_on_signal

#: The variable that names the file for a profile.
PROFILE = "BENCHMARK_PROFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where to work: the services' databases by name, the broker's exchange, and the type of its queues.

    The toolkit always has quorum queues.
    """

    broker: str
    exchange: str
    databases: dict[str, str]
    queues: str = "quorum"

    def as_argument(self) -> str:
        """Return it as the one argument of a process."""
        return json.dumps(asdict(self))


def work(run: Callable[[Assignment, asyncio.Event], Awaitable[None]]) -> None:
    """Run a system until SIGTERM."""
    assignment = Assignment(**json.loads(sys.argv[1]))

    async def main() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        if file := os.environ.get(COUNTS):
            switch_on_signal(file, databases=assignment.databases.values())
        await run(assignment, stopped)

    if file := os.environ.get(PROFILE):
        with cProfile.Profile() as profile:
            asyncio.run(main())
        profile.dump_stats(file)
    else:
        asyncio.run(main())
