"""Instructions a saga, counted by callgrind: `make bench-instructions`.

The count is of user space alone, and repeats within a percent whatever else the machine does. Only the load runs under
callgrind's instruments: valgrind starts without them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from testcontainers.core.config import testcontainers_config

from benchmarks.catalogue import System, system_named
from benchmarks.databases import DURABLE_POSTGRESQL
from benchmarks.facts import now, packages
from benchmarks.load import Case
from benchmarks.running import Servers, run
from tests.servers import RABBITMQ, find

#: The load that is counted, and what comes before: connections, prepared statements and caches are none of its work.
_COUNTED, _WARM_UP = Case(orders=300, at_once=100), Case(orders=100, at_once=100)
_FIRST = Case(orders=30, at_once=10)
#: Seconds for the work that follows the last end: deletes, and the events that close sagas.
_AFTERWARDS = 1.0
#: The systems that are counted unless others are named.
SYSTEMS = ("by hand, frames as bytes", "by hand", "by hand, SQLModel row", "toolkit")
#: Where the last figures are.
REPORT = Path("docs/reports/instructions.json")


def main() -> int:
    """Count, print each system's figure beside its last one, and write them all to the report if there is one."""
    arguments = _arguments()
    if not shutil.which("valgrind"):
        print("valgrind is missing; install it: apt-get install valgrind", file=sys.stderr)
        return 3
    testcontainers_config.ryuk_disabled = True
    last, counts = last_report(), dict[str, int]()
    with ExitStack() as stack:
        broker, postgres = (stack.enter_context(find(kind)) for kind in (RABBITMQ, DURABLE_POSTGRESQL))
        for name in arguments.systems or SYSTEMS:
            counts[name] = asyncio.run(count(system_named(name), Servers(broker.url, postgres.url)))
            print(_line(name, counts[name], last), flush=True)
    if arguments.report:
        report = {
            "facts": {"orders": _COUNTED.orders, "at once": _COUNTED.at_once, **packages()},
            "counted": last.get("counted", {}) | dict.fromkeys(counts, now()),
            "instructions": last.get("instructions", {}) | counts,
        }
        arguments.report.write_text(json.dumps(report, indent=1) + "\n")
    return 0


async def count(system: System, servers: Servers) -> int:
    """Return the instructions of the system's process for a saga."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "callgrind.out"
        under = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={file}", "--quiet")
        async with run(system, replace(servers, under=under)) as running:
            (process,) = running.processes
            await running.load(_FIRST)
            _control("-i", "on", pid=process.pid)
            await running.load(_WARM_UP)
            await asyncio.sleep(_AFTERWARDS)
            _control("-z", pid=process.pid)
            await running.load(_COUNTED)
            await asyncio.sleep(_AFTERWARDS)
            _control("-d", pid=process.pid)
            total = _total(Path(f"{file}.1"))
            _control("-i", "off", pid=process.pid)
            if wrong := await running.violations():
                raise RuntimeError("; ".join(wrong))
        return round(total / _COUNTED.orders)


def _control(*options: str, pid: int) -> None:
    subprocess.run(["callgrind_control", *options, str(pid)], check=True, capture_output=True)


def _total(dump: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), flags=re.MULTILINE)
    assert found, "callgrind wrote no total"
    return int(found.group(1))


def last_report() -> dict[str, Any]:
    """Return the last report; an empty one where there is none."""
    return dict(json.loads(REPORT.read_text())) if REPORT.exists() else {}


def _line(name: str, counted: int, last: dict[str, Any]) -> str:
    line = f"{name}: {counted / 1e6:.2f} million instructions a saga"
    if before := last.get("instructions", {}).get(name):
        line += f"; {before / 1e6:.2f} on {last['counted'][name][:10]}, {(counted / before - 1) * 100:+.1f} %"
    return line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("systems", nargs="*", help=f"the systems to count; by default {', '.join(SYSTEMS)}")
    parser.add_argument("--report", type=Path, help="write the counts to this JSON file; what it has of others stays")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
