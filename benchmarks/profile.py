"""Where a message's time goes: the toolkit's process under cProfile with 100 orders at once: `make profile`."""

from __future__ import annotations

import argparse
import asyncio
import pstats
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from testcontainers.core.config import testcontainers_config

from benchmarks.catalogue import system_named
from benchmarks.databases import DURABLE_POSTGRESQL
from benchmarks.load import Case
from benchmarks.measure import measure
from benchmarks.running import Servers
from tests.servers import RABBITMQ, find

_CASE = Case(orders=1_000, at_once=100)
_WARM_UP = Case(orders=100, at_once=50)


def main() -> int:
    """Print the functions with the most time, by themselves and with all that they call."""
    arguments = _arguments()
    testcontainers_config.ryuk_disabled = True
    system = system_named(arguments.system)
    with ExitStack() as stack:
        broker, postgres = (stack.enter_context(find(kind)) for kind in (RABBITMQ, DURABLE_POSTGRESQL))
        file = Path(stack.enter_context(TemporaryDirectory())) / "profile"
        servers = Servers(broker.url, postgres.url, profile=file)
        (figures,) = asyncio.run(measure(system, servers, [_CASE], warm_up=_WARM_UP)).figures
        stats = pstats.Stats(str(file))
    print(f"{figures.sagas_per_second:.0f} sagas/s under the profiler")
    stats.sort_stats("tottime").print_stats(arguments.lines)
    stats.sort_stats("cumulative").print_stats(arguments.lines)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--system", default="toolkit", help="which one; the toolkit in one process by default")
    parser.add_argument("--lines", type=int, default=40, help="how many functions of either list")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
