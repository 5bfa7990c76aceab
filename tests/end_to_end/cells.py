"""The crash matrix as data: each cell is a failpoint, a service and a direction, with the orders that reach it.

Unreachable cells are listed, too, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.end_to_end.crash_shapes import (
    BOUNCED,
    DECLINED,
    FULFILLED,
    IMPATIENT,
    NOT_SHIPPED,
    ORDERS,
    PATHS,
    SLOWLY,
    Path,
    Placed,
    Shape,
)
from tests.end_to_end.placed_orders import SERVICES
from toolkit.failpoints import DIRECTIONS, POINTS
from toolkit.ids import new_id

EMBEDDED = "embedded"

#: The service to hold up so that a step of the key's service is overdue: the consumer of its event.
_NEXT = {"inventory": "payment", "payment": "shipping", "shipping": "notification"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One crash: its service, failpoint, direction and database; `unreachable` is why there is none.

    - `shape`, `path`: the kind of its sagas, and the column; an order's path is its direction.
    - `plots`: the sagas, each as its changes to the example.
    - `settings`: further settings with which the service reaches the point.
    - `died_before_at`: the point of an earlier crash that this one needs.
    - `held`: the service that is stopped meanwhile; with `after_payment` only once the payment has begun.
    """

    point: str
    service: str
    direction: str
    database: str
    shape: Shape = ORDERS
    path: str = ""
    plots: tuple[Mapping[str, object], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    died_before_at: str | None = None
    held: str | None = None
    after_payment: bool = False
    unreachable: str | None = None

    def __str__(self) -> str:
        shape = "" if self.shape is ORDERS else f"{self.shape.name}-"
        return f"{shape}{self.database}-{self.service}-{self.way}-{self.point}"

    @property
    def way(self) -> str:
        """The column's name beside the service."""
        return self.path or self.direction

    def sagas(self) -> list[Placed]:
        """Return fresh sagas."""
        mark = new_id()[-12:]
        return [self.shape.place(f"crashed-{mark}-{number}", plot) for number, plot in enumerate(self.plots)]


def column(service: str, database: str) -> list[Cell]:
    """Return the cells of one service: all points in both directions."""
    return [cell(point, service, direction, database) for point in POINTS for direction in DIRECTIONS]


def matrix(databases: tuple[str, ...] = ("sqlite", "postgresql", EMBEDDED)) -> Iterator[Cell]:
    """Yield all cells; in the embedded transport all services are one process, which has one column."""
    for database in databases:
        for service in SERVICES if database != EMBEDDED else (EMBEDDED,):
            yield from column(service, database)


def cell(point: str, service: str, direction: str, database: str) -> Cell:
    """Return the cell at this place."""
    where = {"point": point, "service": service, "direction": direction, "database": database}
    if point in ("claimed", "called") and service not in ("payment", EMBEDDED):
        return Cell(**where, unreachable="only the payment service makes external calls")
    if point == "overdue-found":
        return _overdue(where)
    if point == "relay-claimed":
        # The relay gets its own rows directly; it finds only those that an earlier process left.
        return Cell(**where, plots=_plots(service, direction), died_before_at="committed")
    return Cell(**where, plots=_plots(service, direction))


def _plots(service: str, direction: str) -> tuple[Mapping[str, object], ...]:
    if direction == "forward":
        return (FULFILLED,) * 3
    # Shipping compensates only after it has completed its step.
    return (BOUNCED,) * 3 if service == "shipping" else (NOT_SHIPPED, BOUNCED, NOT_SHIPPED)


def _overdue(where: dict[str, str]) -> Cell:
    """Return the cell in which a saga stands still until its step is overdue."""
    match where["service"], where["direction"]:
        case "notification", "forward":
            return Cell(**where, unreachable="its forward step ends the saga, so it never waits for the end")
        case "embedded", "forward":
            return Cell(**where, plots=(SLOWLY,), settings=IMPATIENT)
        case "embedded", _:
            plots = (SLOWLY | NOT_SHIPPED,)
            return Cell(**where, plots=plots, settings=IMPATIENT, held="inventory", after_payment=True)
        case service, "forward":
            return Cell(**where, plots=(FULFILLED,), settings=IMPATIENT, held=_NEXT[service])
        case "inventory", _:
            return Cell(**where, plots=(DECLINED,), settings=IMPATIENT, held="notification")
        case "payment", _:
            return Cell(**where, plots=(NOT_SHIPPED,), settings=IMPATIENT, held="notification")
        case _:
            # Both refuse or compensate before the inventory does, which has to have completed its own step by then.
            plots = (SLOWLY | BOUNCED,)
            return Cell(**where, plots=plots, settings=IMPATIENT, held="inventory", after_payment=True)


def cells_of(shapes: Iterable[str], databases: Iterable[str]) -> list[Cell]:
    """Return all cells of these shapes; only orders run in the embedded transport."""
    found: list[Cell] = []
    for shape in shapes:
        for database in databases:
            if shape == ORDERS.name:
                found += matrix((database,))
            elif database != EMBEDDED:
                found += path_cells(shape, database)
    return found


def path_cells(shape: str, database: str) -> list[Cell]:
    """Return the cells of all paths of this shape: all points on each."""
    kind, paths = PATHS[shape]
    return [_on_path(kind, path, point, database) for path in paths for point in POINTS]


def _on_path(shape: Shape, path: Path, point: str, database: str) -> Cell:
    where = {"point": point, "service": path.service, "direction": path.direction, "database": database}
    facts = where | {"shape": shape, "path": path.name}
    if reason := path.unreachable.get(point):
        return Cell(**facts, unreachable=reason)
    is_overdue = point == "overdue-found"
    return Cell(
        **facts,
        plots=path.plots[:1] if is_overdue else path.plots,
        settings={**path.settings, **(IMPATIENT if is_overdue else {})},
        held=path.overdue if is_overdue else path.held,
        # The relay gets its own rows directly; it finds only those that an earlier process left.
        died_before_at="committed" if point == "relay-claimed" else None,
    )
