"""The systems that are compared."""

from __future__ import annotations

from dataclasses import dataclass

_TOOLKIT, _BY_HAND = "benchmarks.systems.by_toolkit", "benchmarks.systems.by_hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One system.

    - `processes`: the number of its processes; the services are distributed over them. `replicas` run all four services
      each, and share their queues and databases.
    - `on_files`: on SQLite instead of PostgreSQL.
    - `embedded`: its process is its own client.
    - `old_entries`: the entries that its logs have before, on PostgreSQL.
    - `share`: the part of each load's orders that it gets: fewer for a slow system, more for one that is done at once.
    - `at_once`: the loads that it gets; all by default.
    - `decides`: a goal depends on it, so it is measured in each round; the others have the first one only, and no load
      with refused orders.
    - `is_counted`: its calls and round trips can be counted; a driver written in C hides them.
    """

    name: str
    module: str
    processes: int = 1
    replicas: bool = False
    on_files: bool = False
    embedded: bool = False
    queues: str = "quorum"
    old_entries: int = 0
    share: float = 1.0
    at_once: tuple[int, ...] = ()
    decides: bool = False
    is_counted: bool = True


SYSTEMS = (
    System(name="usual stack", module="benchmarks.systems.usual", share=0.2, at_once=(1, 10, 100), decides=True),
    System(name="by hand", module=f"{_BY_HAND}.on_postgresql", share=3, decides=True),
    System(
        name="by hand, SQLModel row",
        module=f"{_BY_HAND}.with_sqlmodel_rows",
        share=2,
        at_once=(1, 10, 100),
        decides=True,
    ),
    System(name="toolkit", module=_TOOLKIT, decides=True),
    System(
        name="by hand, SQLite",
        module=f"{_BY_HAND}.on_sqlite",
        on_files=True,
        share=3,
        at_once=(1, 10, 100),
        decides=True,
    ),
    System(
        name="by hand, SQLite, SQLModel row",
        module=f"{_BY_HAND}.on_sqlite_with_sqlmodel_rows",
        on_files=True,
        share=2,
        at_once=(1, 10, 100),
        decides=True,
    ),
    System(name="toolkit, SQLite", module=_TOOLKIT, on_files=True, at_once=(1, 10, 100), decides=True),
    System(
        name="by hand, embedded",
        module=f"{_BY_HAND}.embedded",
        on_files=True,
        embedded=True,
        share=5,
        decides=True,
    ),
    System(
        name="by hand, embedded, SQLModel row",
        module=f"{_BY_HAND}.embedded_with_sqlmodel_rows",
        on_files=True,
        embedded=True,
        share=3,
        decides=True,
    ),
    System(
        name="toolkit, embedded",
        module="benchmarks.systems.embedded",
        on_files=True,
        embedded=True,
        decides=True,
    ),
    System(
        name="DBOS",
        module="benchmarks.systems.by_dbos",
        share=0.1,
        at_once=(1, 10, 100),
        decides=True,
        is_counted=False,
    ),
    System(name="by hand, a statement a table", module=f"{_BY_HAND}.statement_a_table", at_once=(1, 100)),
    System(name="by hand, frames as bytes", module=f"{_BY_HAND}.with_frames_as_bytes", share=5, at_once=(1, 100)),
    System(
        name="by hand, classic queues",
        module=f"{_BY_HAND}.on_postgresql",
        queues="classic",
        share=3,
        at_once=(100,),
    ),
    System(name="toolkit, external payment", module="benchmarks.systems.external", at_once=(1, 100)),
    System(name="toolkit, 2 processes", module=_TOOLKIT, processes=2, replicas=True, at_once=(100, 1000)),
    System(name="toolkit, 4 processes", module=_TOOLKIT, processes=4, replicas=True, at_once=(100, 1000)),
    System(name="toolkit, a process a service", module=_TOOLKIT, processes=4, at_once=(100, 1000)),
)


def system_named(name: str) -> System:
    """Return one of the systems.

    Raises:
        SystemExit: there is none of this name.
    """
    for system in SYSTEMS:
        if system.name == name:
            return system
    raise SystemExit(f"no system is named {name!r}; there are: {', '.join(each.name for each in SYSTEMS)}")
