"""The toolkit's plugin for pytest: fixtures for sagas.

pytest imports this module wherever the toolkit is installed; all else is imported by the first test that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from toolkit.testing import SagaWorld


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that replays a seed of a simulation."""
    group = parser.getgroup("sagas", "sagas of saga-toolkit")
    group.addoption("--saga-seed", type=int, metavar="SEED", help="run simulations of sagas with this seed alone")
    group.addoption("--saga-seeds", type=int, metavar="COUNT", help="run simulations of sagas with so many seeds")


@pytest.fixture
def saga_world() -> Iterator[Callable[..., SagaWorld]]:
    """Open worlds of services, as `toolkit.testing.SagaWorld` does, and close them after the test."""
    from toolkit.testing import SagaWorld

    with ExitStack() as stack:

        def open_world(*services: Any, **options: Any) -> SagaWorld:
            return stack.enter_context(SagaWorld(*services, **options))

        yield open_world


@pytest.fixture
def saga_simulation(request: pytest.FixtureRequest) -> Callable[..., int]:
    """Simulate sagas once for each seed, as `toolkit.testing.simulate` does; a failure names this test's replay.

    `--saga-seed 17` runs that seed alone, `--saga-seeds 5000` the seeds from 0 on.
    """
    from toolkit.testing import simulate

    seed, count = request.config.getoption("--saga-seed"), request.config.getoption("--saga-seeds")
    nodeid = request.node.nodeid

    def run(seeds: int | Iterable[int], *arguments: Any, **options: Any) -> int:
        chosen = [seed] if seed is not None else range(count) if count is not None else seeds
        options.setdefault("replay", lambda failed: f"pytest '{nodeid}' --saga-seed {failed}")
        return simulate(chosen, *arguments, **options)

    return run
