"""One column of the crash matrix: the payment service on SQLite dies at every point, in both directions.

Payment has the most points: it alone makes external calls. `make crash` runs all columns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.end_to_end.cells import DIRECTIONS, POINTS, SERVICES, Cell, column, matrix, path_cells
from tests.end_to_end.crash_matrix import open_fleet, run_on_fleet
from tests.end_to_end.crash_shapes import PATHS
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.servers import Server

#: A cell waits for a crash and for the recovery, half a minute each at most.
pytestmark = pytest.mark.timeout(120)

CELLS = column("payment", "sqlite")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(rabbitmq: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    directory: Path = tmp_path_factory.mktemp("crash")
    async with open_fleet("sqlite", rabbitmq.url, directory, sqlite_databases(directory)) as fleet:
        yield fleet


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_payment_killed_at_a_point_recovers(fleet: Fleet, cell: Cell) -> None:
    result = await run_on_fleet(cell, fleet)

    assert result.right_after is not None


def test_the_matrix_covers_each_point_and_direction():
    cells = list(matrix())

    places = {(cell.point, cell.direction, cell.service, cell.database) for cell in cells}
    assert len(cells) == len(places) == len(POINTS) * len(DIRECTIONS) * (2 * len(SERVICES) + 1)
    assert all(cell.plots or cell.unreachable for cell in cells)


@pytest.mark.parametrize("shape", PATHS)
def test_each_path_has_a_cell_at_each_point(shape: str):
    kind, paths = PATHS[shape]

    cells = path_cells(shape, "sqlite")

    assert len({str(cell) for cell in cells}) == len(POINTS) * len(paths)
    assert all(cell.plots or cell.unreachable for cell in cells)
    assert {cell.service for cell in cells} | {cell.held for cell in cells if cell.held} <= set(kind.services)
