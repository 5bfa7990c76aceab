"""The toolkit's side of a backlog: the shop's inventory, whose orders have all expired."""

from __future__ import annotations

from functools import partial

from benchmarks.systems.by_toolkit import run
from benchmarks.systems.process import work
from services.inventory.app import app

if __name__ == "__main__":
    work(partial(run, services={app.name: app}))
