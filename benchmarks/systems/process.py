"""What each system's process is told, and how it is told to stop."""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

#: The variable that names the file for a profile.
PROFILE = "BENCHMARK_PROFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Where to work: the services' databases by name, the broker's exchange, and the type of its queues.

    The toolkit has quorum queues, whatever it is asked for.
    """

    broker: str
    exchange: str
    databases: dict[str, str]
    queues: str = "quorum"

    def as_argument(self) -> str:
        """Return it as the one argument of a process."""
        return json.dumps(asdict(self))


def work(run: Callable[[Asked, asyncio.Event], Awaitable[None]]) -> None:
    """Run a system until SIGTERM."""

    async def main() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await run(Asked(**json.loads(sys.argv[1])), stopped)

    if file := os.environ.get(PROFILE):
        with cProfile.Profile() as profile:
            asyncio.run(main())
        profile.dump_stats(file)
    else:
        asyncio.run(main())
