"""Instructions a saga, counted by callgrind: `make bench-instructions`.

The count is of user space alone, and repeats within a percent whatever else the machine does. A system is loaded with
more orders in a second run; the difference leaves out its start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from testcontainers.core.config import testcontainers_config

from benchmarks.databases import DURABLE_POSTGRESQL
from benchmarks.load import Case
from benchmarks.measure import SYSTEMS, Ground, System
from tests.servers import RABBITMQ, find

#: The orders of the two runs.
_FEW, _MANY = 100, 300
#: The systems that are counted unless others are named.
_SYSTEMS = ("by hand", "toolkit")


def main() -> int:
    """Count, print a line for each system, and write them all to the report if there is one."""
    asked = _arguments()
    if not shutil.which("valgrind"):
        print("valgrind is missing; install it: apt-get install valgrind", file=sys.stderr)
        return 3
    testcontainers_config.ryuk_disabled = True
    counts = {}
    with ExitStack() as stack:
        broker, postgres = (stack.enter_context(find(kind)) for kind in (RABBITMQ, DURABLE_POSTGRESQL))
        for name in asked.systems or _SYSTEMS:
            system = next(each for each in SYSTEMS if each.name == name)
            few, many = (_count(system, broker.url, postgres.url, orders) for orders in (_FEW, _MANY))
            counts[name] = round((many - few) / (_MANY - _FEW))
            print(f"{name}: {counts[name] / 1e6:.2f} million instructions a saga", flush=True)
    if asked.report:
        asked.report.write_text(
            json.dumps({"at": datetime.now(UTC).isoformat(), "instructions": counts}, indent=2) + "\n"
        )
    return 0


def _count(system: System, broker: str, postgres: str, orders: int) -> int:
    """Return the instructions of the system's process from its start to its end, with so many orders."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "callgrind.out"
        under = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={file}", "--quiet")
        ground = Ground(broker, postgres, under=under)
        case = Case(orders=orders, at_once=100)
        asyncio.run(ground.measure(system, [case], warm_up=Case(orders=10, at_once=10)))
        found = re.search(r"^(?:summary|totals): (\d+)", file.read_text(), flags=re.MULTILINE)
        assert found, f"callgrind wrote no total for {system.name}"
        return int(found.group(1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("systems", nargs="*", help=f"the systems to count; {' and '.join(_SYSTEMS)} by default")
    parser.add_argument("--report", type=Path, help="write the counts to this JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
