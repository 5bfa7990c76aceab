"""A run of the benchmark keeps the figures that it has when a later part of it fails."""

from __future__ import annotations

from benchmarks.backlog import drain
from benchmarks.goals import Results
from benchmarks.parts import kept
from benchmarks.running import Servers


def test_a_part_that_fails_is_a_violation() -> None:
    errors: list[str] = []
    away = Servers("amqp://guest:guest@127.0.0.1:1/", "postgresql://postgres@127.0.0.1:1/postgres")

    backlog = kept("the backlog", drain(away), errors)

    results = Results(figures=[], backlog=backlog, errors=errors)
    assert backlog is None
    assert results.is_wrong()
    assert results.violations()[0].startswith("the backlog could not be measured: ConnectionRefusedError: ")
