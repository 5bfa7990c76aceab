"""Small runs of chaos, of duplicates and of releases, which end within minutes; `make chaos` does the full ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos import runs
from tests.chaos.__main__ import RUNS, arguments
from tests.chaos.outcome import Outcome
from tests.chaos.plan import STEADY, Fault, Size, plan
from tests.chaos.releases import releases
from tests.chaos.world import Servers, servers

#: Enough for each class of faults to take effect, and for most sagas to end meanwhile.
SMALL = Size(
    sagas=500,
    kills=8,
    pauses=4,
    broker_outages=6,
    database_outages=5,
    queries=4,
    rights=4,
    controls=3,
    poison=9,
    span=75,
    longest=8,
    missed_after=20,
)
SEED = 7


@pytest.fixture(scope="module")
def own_servers() -> Iterator[Servers]:
    with servers() as own:
        yield own


@pytest.mark.timeout(420)
@pytest.mark.parametrize("is_coordinated", [False, True], ids=["choreographed", "coordinated"])
async def test_500_sagas_survive_all_faults_at_once(own_servers: Servers, is_coordinated: bool) -> None:
    outcome = await runs.chaos(own_servers, SMALL, seed=SEED, progress=_count_nothing, is_coordinated=is_coordinated)

    assert outcome.violations == [], _summary(outcome)


@pytest.mark.timeout(300)
async def test_doubled_deliveries_have_no_double_effect(own_servers: Servers) -> None:
    outcome = await runs.duplicates(own_servers, deliveries=3_000, seed=SEED, progress=_count_nothing)

    assert outcome.violations == [], _summary(outcome)


@pytest.mark.timeout(300)
async def test_consecutive_releases_lose_nothing(own_servers: Servers) -> None:
    outcome = await releases(own_servers, sagas=20, progress=_count_nothing)

    assert outcome.violations == [], _summary(outcome)


def test_all_runs_are_the_default() -> None:
    assert tuple(arguments([]).runs) == RUNS
    assert arguments(["recovery"]).runs == ["recovery"]


def test_each_seed_has_its_own_plan() -> None:
    size = Size.of(20_000, rate=20)

    assert plan(1, size) == plan(1, size)
    assert plan(1, size) != plan(2, size)


def test_the_plan_has_each_fault_class() -> None:
    assert plan(SEED, SMALL).faults | set(STEADY) == set(Fault)


def test_the_full_plan_has_the_required_faults() -> None:
    lanes = plan(1, Size.of(20_000, rate=20)).lanes

    assert len(lanes["kills"]) >= 100
    assert len(lanes["broker"]) >= 20
    assert len(lanes["database"]) >= 20


def _count_nothing(what: str, more: int) -> None:
    """Discard the progress."""


def _summary(outcome: Outcome) -> str:
    return f"seed {outcome.seed}: {outcome.violations[:10]}; {outcome.figures}"
