"""A simulated process ends at each failpoint of production, and the saga ends as if it had not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.example_sagas.parcels import Carrier, services
from tests.simulation.parcel_check import PARCELS, parcels_add_up
from toolkit import failpoints
from toolkit.testing.simulation.bench import Bench
from toolkit.testing.simulation.faults import FailpointCrash
from toolkit.testing.simulation.process import Process
from toolkit.testing.simulation.schedule import Schedule, Start

#: A broker's transport acknowledges; a poll claims rows of a process that died, and a sweep finds overdue steps.
POINTS = [each for each in failpoints.POINTS if each not in ("acked", "relay-claimed", "overdue-found")]
STARTS = tuple(Start((each,)) for each in PARCELS)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench(services(), provides={Carrier: Carrier})
    yield bench
    bench.close()


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_a_failpoint_loses_nothing(point: str, bench: Bench, monkeypatch: pytest.MonkeyPatch):
    died = []
    die = Process.die

    def noted(self: Process):
        died.append(self._service.name)
        die(self)

    monkeypatch.setattr(Process, "die", noted)
    for service in bench.names:
        for times in (1, 2):
            schedule = Schedule(0, STARTS, (FailpointCrash(1, service, point, times),))
            assert bench.run(schedule, parcels_add_up).violations == []
    assert "carrier" in died, "its step is external, so it passes every point"
