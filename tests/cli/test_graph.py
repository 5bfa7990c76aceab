"""`saga graph` reads declarations alone, and fails a build whose choreography has a fault."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FAULTY_APP = """
from toolkit import Event, Participant, Saga, SagaId, Service


class TripBooked(Event, owner="desk"):
    trip_id: SagaId


class TripNoted(Event, owner="desk"):
    trip_id: SagaId


TRIP = Saga(name="trip", id_field="trip_id", starts_with=TripBooked, completes_with=TripNoted, fails_with=TripNoted)
desk = Participant("desk", saga=TRIP)


@desk.step()
async def note_trip(event: TripBooked) -> TripNoted:
    return TripNoted(trip_id=event.trip_id)


app = Service(name="desk", participants=[desk])
"""


@pytest.fixture
def faulty_package(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    desk = tmp_path / "faulty" / "desk"
    desk.mkdir(parents=True)
    (desk.parent / "__init__.py").touch()
    (desk / "__init__.py").touch()
    (desk / "app.py").write_text(FAULTY_APP)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGA_PACKAGE", "faulty")
    return "faulty"


def test_shipped_services_are_drawn_without_findings(saga):
    result = saga("graph", "--check")

    assert result.exit_code == 0
    assert result.stdout.startswith("saga order: OrderCreated → OrderFulfilled | OrderFailed")
    assert result.stderr == "no findings in 8 steps and compensations\n"


def test_a_mermaid_chart_is_nothing_but_the_chart(saga):
    result = saga("graph", "--format", "mermaid")

    assert result.stdout.startswith("flowchart LR\n")
    assert result.stderr == ""


def test_fault_ends_with_1_and_names_the_cure(saga, faulty_package):
    result = saga("graph", "--check")

    assert result.exit_code == 1
    assert "note_trip (desk)" in result.stdout
    assert result.stderr == (
        "unconsumed event: note_trip (desk) emits TripNoted, and no service consumes it. "
        "Let a step or a compensation run on it, or declare the event with optional=True.\n"
    )


def test_missing_package_is_wrong_use(saga, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "elsewhere")

    result = saga("graph")

    assert result.exit_code == 2
    assert "there is no module 'elsewhere'" in result.stderr
    assert "SAGA_PACKAGE" in result.stderr
