"""The outcome of a run: figures, violations, and the percentiles of times."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.world import World

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run's figures by name, and its violations; a run without any has passed."""

    run: str
    seed: int
    figures: dict[str, object]
    violations: Sequence[str] = ()
    seconds: float = 0.0
    details: dict[str, object] = field(default_factory=dict)


def wrong_ends(here: World, ends: dict[tuple[str, str], tuple[str, float]]) -> list[str]:
    """Return the sagas with a wrong end."""
    wrong = {saga: state for saga, (state, _) in ends.items() if state not in here.due.get(saga, ())}
    return [
        f"{' '.join(saga)} ended {state}, and may end {' or '.join(sorted(here.due.get(saga, ())))}"
        for saga, state in wrong.items()
    ]


def lengths(here: World, ends: dict[tuple[str, str], tuple[str, float]]) -> list[float]:
    """Return the seconds from each order to its end."""
    return [at - here.placed_at[saga_id] for (saga_type, saga_id), (_, at) in ends.items() if saga_type == "order"]


def spread(name: str, values: Sequence[float]) -> dict[str, object]:
    """Return the percentiles of some values, under this name."""
    if not values:
        return {name: "none"}
    shown = {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values), "count": len(values)}
    return {name: {key: round(value, 2) for key, value in shown.items()}}


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of some values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
