"""`saga check` reads declarations or contracts alone, and fails a build whose sagas may end wrong."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import examples
from services.demo import SERVICES
from tests.cli.conftest import PROJECT
from toolkit.declaration.contract import Contract

FAULTY_APP = """
from toolkit import Event, Participant, Refusal, Saga, SagaId, Service


class TripBooked(Event, owner="desk"):
    trip_id: SagaId


class SeatTaken(Event, owner="desk"):
    trip_id: SagaId


class TripNoted(Event, owner="desk", optional=True):
    trip_id: SagaId


class TripRefused(Refusal, owner="desk"):
    trip_id: SagaId


class TripFailed(Event, owner="desk", optional=True):
    trip_id: SagaId


TRIP = Saga(name="trip", id_field="trip_id", starts_with=TripBooked, completes_with=TripNoted, fails_with=TripFailed)
desk = Participant("desk", saga=TRIP)


@desk.step()
async def take_seat(event: TripBooked) -> SeatTaken:
    return SeatTaken(trip_id=event.trip_id)


@desk.step()
async def note_trip(event: SeatTaken) -> TripNoted | TripRefused:
    return TripNoted(trip_id=event.trip_id)


@desk.step()
async def fail_trip(event: TripRefused) -> TripFailed:
    return TripFailed(trip_id=event.trip_id)


app = Service(name="desk", participants=[desk])
"""

PLANNED_APP = """
from faulty.desk.app import TRIP, TripBooked
from toolkit import SagaOrchestrator, SagaStep, Service

TripBooked.model_config["json_schema_extra"] = {"examples": [{"trip_id": "trip-1"}]}


class TripPlan(SagaOrchestrator, saga=TRIP):
    failed_end = SagaStep("fail_trip")

    def define_steps(self, data: TripBooked) -> list[SagaStep]:
        return [SagaStep("take_seat"), SagaStep("note_trip")]


app = Service(name="agency", orchestrators=[TripPlan])
"""

NOT_EXPLORED = (
    "· saga order: not explored, since fulfillment asks its steps by a plan of its own: check fulfillment, too\n"
)


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
    forget()
    return "faulty"


def declare(directory: Path, app: str | None) -> None:
    """Add the package faulty.hall, with this module app."""
    hall = directory / "faulty" / "hall"
    hall.mkdir()
    (hall / "__init__.py").touch()
    if app:
        (hall / "app.py").write_text(app)


def forget() -> None:
    """Let the package be imported again: each test writes its own."""
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "faulty"]:
        del sys.modules[name]


def test_shipped_services_are_proved(saga):
    result = saga("check")

    assert result.exit_code == 0
    assert result.stdout.startswith("✓ saga order: no interleaving breaks it, 76 states in ")
    assert result.stderr == ""


@pytest.mark.parametrize("example", [each.name for each in pkgutil.iter_modules(examples.__path__)])
def test_each_example_is_proved_by_the_command(saga, monkeypatch, example):
    monkeypatch.setenv("SAGA_PACKAGE", f"examples.{example}")

    result = saga("check")
    rows = json.loads(saga("check", "-o", "json").stdout)

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("✓ saga ")
    assert all(row["is_proved"] and row["seconds"] < 10 for row in rows)


def test_a_coordinators_plan_is_explored(saga, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "examples.orchestrated")
    monkeypatch.setenv("SAGA_ASKED_BY", "fulfillment")

    result = saga("check")
    (row,) = json.loads(saga("check", "-o", "json").stdout)

    expected = "✓ saga order, fulfillment's plan for example 1: no interleaving breaks it, 288 states in "
    assert result.stdout.startswith(expected)
    assert (row["coordinator"], row["states"]) == ("fulfillment", 288)
    assert row["plan"]["examples"] == [1]
    assert row["plan"]["groups"][0] == ["reserve_inventory"]


def test_a_fault_of_a_plan_ends_with_1(saga, faulty_package, monkeypatch, tmp_path):
    (tmp_path / "planned.py").write_text(PLANNED_APP)

    result = saga("check", "faulty.desk.app:app", "planned:app", "--pytest", str(tmp_path / "test_stories.py"))

    assert result.exit_code == 1
    assert result.stderr.startswith("the stories of a coordinator's plan are not written: ")
    sign, _, *lines = result.stdout.splitlines()
    assert sign.startswith("✗ saga trip, agency's plan for example 1: 1 finding, ")
    assert lines == [
        "left standing: fail_trip (desk) fails the saga by TripFailed, and take_seat (desk) still stands",
        "  1. agency asks take_seat",
        "  2. take_seat completes",
        "  3. agency asks note_trip",
        "  4. note_trip refuses with TripRefused",
        "  5. agency asks fail_trip",
        "  6. fail_trip completes",
        "  change take_seat (desk): Give take_seat a compensation: @….compensation(of=take_seat)",
    ]


def test_a_coordinator_that_is_away_is_not_explored(saga, monkeypatch):
    monkeypatch.setenv("SAGA_ASKED_BY", "fulfillment")

    result = saga("check")
    (report,) = json.loads(saga("check", "-o", "json").stdout)

    assert result.exit_code == 0
    assert result.stdout == NOT_EXPLORED
    assert (report["coordinator"], report["plan"], report["is_proved"]) == ("fulfillment", None, False)


def test_a_coordinated_saga_in_databases_is_not_explored(saga, logs, monkeypatch):
    monkeypatch.setenv("SAGA_ASKED_BY", "fulfillment")

    result = saga("check", *(f"--service={name}={url}" for name, url in logs.items()))

    assert result.exit_code == 0
    assert result.stdout == NOT_EXPLORED


def test_a_fault_of_a_coordinated_saga_ends_with_1(saga, faulty_package, monkeypatch, tmp_path):
    foreign = FAULTY_APP.replace('SeatTaken(Event, owner="desk")', 'SeatTaken(Event, owner="airline")')
    (tmp_path / "desk_of_an_airline.py").write_text(foreign)
    monkeypatch.setenv("SAGA_ASKED_BY", "fulfillment")

    result = saga("check", "desk_of_an_airline:app")

    assert result.exit_code == 1
    sign, _, finding, cure = result.stdout.splitlines()
    assert sign == "✗ saga trip: 1 finding, not explored, since fulfillment asks its steps by a plan of its own"
    assert finding == "foreign event: take_seat (desk) emits SeatTaken, which belongs to airline"
    assert cure.startswith("  change take_seat (desk): ")


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (None, "it has no module app"),
        (
            "from faulty.desk.app import app as hall\n",
            "faulty.hall.app has its Service under the name hall: name it app",
        ),
        ("app = None\n", "faulty.hall.app has no attribute app that is a Service"),
    ],
)
def test_a_package_without_service_is_named(saga, faulty_package, tmp_path, app, reason):
    declare(tmp_path, app)

    result = saga("check")

    assert result.stderr == f"warning: faulty.hall counts as no service: {reason}\n"
    assert result.stdout.startswith("✗ saga trip: 2 findings, ")


def test_a_misnamed_only_service_is_named(saga, faulty_package, tmp_path):
    (tmp_path / "faulty" / "desk" / "app.py").write_text(FAULTY_APP.replace("app = Service", "desk_app = Service"))

    result = saga("check")

    assert result.exit_code == 2
    assert result.stderr.endswith("; faulty.desk counts as no service: faulty.desk.app has its Service under the name "
                                  "desk_app: name it app\n")  # fmt: skip


def test_two_services_of_one_name_are_refused(saga, faulty_package, tmp_path):
    declare(tmp_path, 'from toolkit import Service\n\napp = Service(name="desk")\n')

    result = saga("check")

    assert result.exit_code == 2
    assert result.stderr.startswith(
        "error: two services are named 'desk', at faulty.desk.app:app and faulty.hall.app:app: rename one"
    )


def test_a_fault_ends_with_1_and_a_story(saga, faulty_package):
    result = saga("check")

    assert result.exit_code == 1
    sign, *lines = result.stdout.splitlines()
    assert sign.startswith("✗ saga trip: 2 findings, ")
    assert lines == [
        "",
        "uncompensated step: take_seat (desk) is still done after TripRefused",
        "  change take_seat (desk): Give it a compensation that is reached from there: @….compensation(of=take_seat)",
        "",
        "left standing: fail_trip (desk) fails the saga by TripFailed, and take_seat (desk) still stands",
        "  1. take_seat completes",
        "  2. note_trip refuses with TripRefused",
        "  3. fail_trip completes",
        "  change take_seat (desk): Give take_seat a compensation that runs on TripRefused: "
        "@….compensation(of=take_seat)",
    ]


def test_scripts_get_each_finding_with_its_place(saga, faulty_package):
    (report,) = json.loads(saga("check", "-o", "json").stdout)

    assert (report["saga"], report["is_proved"], report["is_complete"]) == ("trip", False, True)
    story = [each for each in report["findings"] if each["story"]]
    assert [(each["rule"], each["service"], each["function"]) for each in story] == [
        ("left standing", "desk", "take_seat")
    ]


def test_an_unfinished_exploration_ends_with_4(saga):
    result = saga("check", "--most-states", "10")

    assert result.exit_code == 4
    assert result.stdout.startswith("? saga order: nothing is proved: more than ")


def test_an_unfinished_exploration_with_findings_ends_with_1(saga, faulty_package):
    result = saga("check", "--most-states", "1")

    assert result.exit_code == 1
    assert result.stderr == "warning: trip has more states than were explored, and may have more findings\n"


def test_contracts_in_files_are_checked(saga, tmp_path):
    contracts = [Contract.of(each).model_dump(mode="json") for each in SERVICES]
    (tmp_path / "one.json").write_text(json.dumps(contracts[0]))
    (tmp_path / "others.json").write_text(json.dumps(contracts[1:]))

    result = saga("check", str(tmp_path / "one.json"), str(tmp_path / "others.json"))

    assert result.exit_code == 0, result.output
    assert "76 states" in result.stdout


def test_named_services_are_checked_by_their_declarations(saga):
    named = saga("check", "payment", "services.inventory.app:app", "shipping", "notification")
    alone = saga("check", "payment")

    assert named.exit_code == 0
    assert alone.exit_code == 1
    assert "PaymentProcessed, and no service consumes it" in alone.stdout


def test_contracts_of_running_services_are_checked(saga, logs, serve):
    urls = {name: serve(name, url) for name, url in logs.items()}

    result = saga("check", *(f"--service={name}={url}" for name, url in urls.items()), env={"SAGA_API_TOKEN": ""})

    assert result.exit_code == 0, result.output
    assert "76 states" in result.stdout


def test_a_service_that_is_away_ends_with_3(saga):
    result = saga("check", "--service=payment=http://127.0.0.1:1")

    assert result.exit_code == 3


def test_a_story_is_written_as_a_failing_test(saga, faulty_package, tmp_path):
    path = tmp_path / "test_stories.py"

    result = saga("check", "--pytest", str(path))
    played = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{PROJECT}"}, capture_output=True, text=True,
    )  # fmt: skip

    assert result.exit_code == 1
    assert result.stderr == f"1 failing test written: python -m pytest {path} (pytest has to be installed)\n"
    assert "1 failed" in played.stdout, played.stdout
    assert "every saga ends: take_seat is left completed in a saga that ended Failed" in played.stdout


def test_nothing_is_written_for_a_sound_saga(saga, tmp_path):
    result = saga("check", "--pytest", str(tmp_path / "test_stories.py"))

    assert result.exit_code == 0
    assert not (tmp_path / "test_stories.py").exists()
    assert "no story to write" in result.stderr


def test_a_file_of_other_tests_is_not_overwritten(saga, faulty_package, tmp_path):
    path = tmp_path / "test_mine.py"
    path.write_text("def test_mine(): ...")

    refused = saga("check", "--pytest", str(path))
    written = saga("check", "--pytest", str(tmp_path / "test_stories.py"))
    again = saga("check", "--pytest", str(tmp_path / "test_stories.py"))

    assert (refused.exit_code, written.exit_code, again.exit_code) == (2, 1, 1)
    assert path.read_text() == "def test_mine(): ..."


def test_services_of_one_name_write_no_tests(saga, faulty_package, tmp_path):
    for module in ("one_desk", "other_desk"):
        (tmp_path / f"{module}.py").write_text(FAULTY_APP)

    result = saga("check", "one_desk:app", "other_desk:app", "--pytest", str(tmp_path / "test_stories.py"))

    assert result.exit_code == 2
    assert "two have the same one: name one of them only" in result.stderr


def test_contracts_alone_write_no_tests(saga, tmp_path):
    (tmp_path / "one.json").write_text(Contract.of(SERVICES[0]).model_dump_json())

    result = saga("check", str(tmp_path / "one.json"), "--pytest", str(tmp_path / "test_stories.py"))

    assert result.exit_code == 2
    assert "--pytest needs the declarations of all services; these are none: inventory" in result.stderr


@pytest.mark.parametrize("content", ["[]x", '{"service": "desk"}'])
def test_a_file_without_a_contract_is_wrong_use(saga, tmp_path, content):
    (tmp_path / "some.json").write_text(content)

    result = saga("check", str(tmp_path / "some.json"))

    assert result.exit_code == 2
    assert "holds no contract" in result.stderr
