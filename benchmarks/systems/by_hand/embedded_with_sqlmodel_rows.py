"""The limit without a broker that keeps a service's own rows in SQLModel."""

from __future__ import annotations

from functools import partial

from benchmarks.systems.by_hand.embedded import run
from benchmarks.systems.by_hand.on_sqlite_with_sqlmodel_rows import SessionStore
from benchmarks.systems.process import work

if __name__ == "__main__":
    work(partial(run, open_store=SessionStore.open))
