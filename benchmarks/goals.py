"""The goals of the toolkit, and the figures of a run that decide whether they are met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.backlog import Backlog
from benchmarks.counters import Counts
from benchmarks.measure import Statistics
from benchmarks.old_entries import Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that a run has found.

    - `counts`: for each saga, by system, with a hundred at once.
    - `instructions`: for each saga, by system, from the last report of `make bench-instructions`.
    - `errors`: what could not be measured, and why.
    """

    figures: Sequence[Statistics]
    counts: Mapping[str, Counts] = field(default_factory=dict)
    instructions: Mapping[str, int] = field(default_factory=dict)
    backlog: Backlog | None = None
    old_entries: Pairs | None = None
    errors: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def at(self, system: str, at_once: int, refused: float = 0.0) -> Statistics:
        """Return a system's figures at one load.

        Raises:
            KeyError: the run has not measured it.
        """
        for each in self.figures:
            if (each.system, each.at_once, each.refused) == (system, at_once, refused):
                return each
        raise KeyError(system)

    def rate(self, system: str, refused: float = 0.0) -> float:
        """Return a system's sagas a second with a hundred at once."""
        return self.at(system, 100, refused).sagas_per_second

    def is_wrong(self) -> bool:
        """Whether a system did anything else than it should."""
        return bool(self.violations())

    def violations(self) -> list[str]:
        """Return what systems did wrong, and what could not be measured."""
        found = [violation for each in self.figures for violation in each.violations]
        return [*found, *(self.old_entries.violations if self.old_entries else ()), *self.errors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure that is to be reached; `figure` raises KeyError where the run has not measured it."""

    what: str
    figure: Callable[[Results], float]
    least: float
    aim: float
    lower_is_better: bool = False

    def is_met(self, reached: float) -> bool:
        """Whether the figure is at least what it has to be."""
        return self._is_within(reached, self.least)

    def is_aim_met(self, reached: float) -> bool:
        """Whether the figure is what it should be."""
        return self._is_within(reached, self.aim)

    def _is_within(self, reached: float, bound: float) -> bool:
        return reached <= bound if self.lower_is_better else reached >= bound


def _ratio(one: str, other: str, *, refused: float = 0.0) -> Callable[[Results], float]:
    return lambda results: results.rate(one, refused) / results.rate(other)


def _backlog_rate(results: Results) -> float:
    if results.backlog is None:
        raise KeyError("backlog")
    return results.backlog.events_per_second


def _ratio_with_old_entries(results: Results) -> float:
    if results.old_entries is None:
        raise KeyError("old entries")
    return results.old_entries.ratio


GOALS = (
    Goal(
        what="instructions a saga, in millions",
        figure=lambda results: results.instructions["toolkit"] / 1e6,
        least=6.7,
        aim=5,
        lower_is_better=True,
    ),
    Goal(what="against the limit by hand", figure=_ratio("toolkit", "by hand"), least=0.4, aim=0.65),
    Goal(
        what="against the limit with a SQLModel row",
        figure=_ratio("toolkit", "by hand, SQLModel row"),
        least=0.75,
        aim=0.9,
    ),
    Goal(what="against the usual stack", figure=_ratio("toolkit", "usual stack"), least=8, aim=12),
    Goal(what="against DBOS", figure=_ratio("toolkit", "DBOS"), least=20, aim=30),
    Goal(
        what="calls to send a saga",
        figure=lambda results: results.counts["toolkit"].sends,
        least=1.8,
        aim=1.2,
        lower_is_better=True,
    ),
    Goal(
        what="p50 of a saga alone, against the limit's",
        figure=lambda results: results.at("toolkit", 1).p50 / results.at("by hand", 1).p50,
        least=1.6,
        aim=1.2,
        lower_is_better=True,
    ),
    Goal(
        what="embedded, against its limit by hand",
        figure=_ratio("toolkit, embedded", "by hand, embedded"),
        least=0.4,
        aim=0.65,
    ),
    Goal(
        what="SQLite, against its limit by hand",
        figure=_ratio("toolkit, SQLite", "by hand, SQLite"),
        least=0.4,
        aim=0.65,
    ),
    Goal(
        what="embedded, against its limit with a SQLModel row",
        figure=_ratio("toolkit, embedded", "by hand, embedded, SQLModel row"),
        least=0.75,
        aim=0.9,
    ),
    Goal(
        what="SQLite, against its limit with a SQLModel row",
        figure=_ratio("toolkit, SQLite", "by hand, SQLite, SQLModel row"),
        least=0.75,
        aim=0.9,
    ),
    Goal(what="a backlog of expired events, a second", figure=_backlog_rate, least=3_500, aim=8_000),
    Goal(what="30 % refused against 0 %", figure=_ratio("toolkit", "toolkit", refused=0.3), least=0.8, aim=0.9),
    Goal(
        what="1,000,000 old entries against none",
        figure=_ratio_with_old_entries,
        least=0.95,
        aim=1,
    ),
)


def reached(results: Results) -> list[tuple[Goal, float]]:
    """Return the goals that the run has measured, each with its figure."""
    found = []
    for goal in GOALS:
        try:
            found.append((goal, goal.figure(results)))
        except KeyError:
            continue
    return found
