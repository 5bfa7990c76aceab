"""Whether a long log slows the toolkit down: loads in turns, with old entries and without, on two systems side by side.

One load takes a second or two and varies by a tenth, which is more than the difference. So the median of many pairs
counts, each of two neighbouring loads, and every second pair in the other order.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.catalogue import system_named
from benchmarks.load import Case
from benchmarks.running import Running, Servers, run

#: The entries that the logs of the four services have before, in all.
OLD_ENTRIES = 1_000_000
_PAIRS, _CASE, _WARM_UP = 16, Case(orders=1_000, at_once=100), Case(orders=500, at_once=100)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs that were measured: of each, the rate with old entries by the rate without, the least first."""

    ratios: Sequence[float]
    violations: Sequence[str]

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)


async def compare(servers: Servers, *, pairs: int = _PAIRS) -> Pairs:
    """Measure the pairs."""
    plain = system_named("toolkit")
    aged = replace(plain, name=f"toolkit, {OLD_ENTRIES:,} old entries", old_entries=OLD_ENTRIES)
    async with run(aged, servers) as with_entries, run(plain, servers) as without:
        for each in (with_entries, without):
            await each.load(_WARM_UP)
        ratios = [await _ratio(with_entries, without, is_first=turn % 2 == 0) for turn in range(pairs)]
        wrong = [violation for each in (with_entries, without) for violation in await each.violations()]
    return Pairs(sorted(ratios), wrong)


async def _ratio(with_entries: Running, without: Running, *, is_first: bool) -> float:
    """Return the rate with old entries by that without; the former is measured first, or second."""
    order = (with_entries, without) if is_first else (without, with_entries)
    first, second = [(await each.load(_CASE)).rate for each in order]
    return first / second if is_first else second / first
