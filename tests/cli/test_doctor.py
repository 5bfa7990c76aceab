"""`saga doctor` at real databases and real services: each misconfiguration is really made, and found with its cure."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.cli.conftest import PROJECT, TOKEN, Saga, served, write_log
from tests.cli.findings import found, only, unchecked
from tests.conftest import PostgresDatabases
from tests.orders import entry
from toolkit.declaration.contract import Contract
from toolkit.declaration.events import SagaState
from toolkit.declaration.service import Service
from toolkit.doctor.checks.registry import CHECKS
from toolkit.doctor.checks.routing import matches
from toolkit.doctor.probes.places import filesystem_of
from toolkit.doctor.probes.services import DEMO_TOKEN
from toolkit.persistence.database import Database

# -- the environment -----------------------------------------------------------------------------------------------


@pytest.fixture
def files(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The files of payment and shipping with all their tables, and no broker to ask."""
    monkeypatch.setenv("SAGA_BROKER_URL", "embedded")
    paths = {each.name: data_dir / f"{each.name}.db" for each in (payment, shipping)}
    for service in (payment, shipping):
        asyncio.run(make_tables(f"sqlite:///{paths[service.name]}", service))
    return paths


async def make_tables(url: str, service: Service) -> None:
    database = Database(url)
    await database.create_tables(*([service.tables] if service.tables else []))
    await database.close()


def ask(saga: Saga, *arguments: str) -> Any:
    return saga("doctor", *arguments, "-o", "json")


def test_a_mistyped_setting_is_found_with_the_one_that_was_meant(saga: Saga, files, monkeypatch):
    monkeypatch.setenv("SAGA_PREFECH", "10")
    monkeypatch.setenv("SAGA_HTPP_PORT", "8080")

    rows = found(ask(saga, "payment"), "unknown setting")

    assert [each["cure"] for each in rows] == [
        "unset SAGA_HTPP_PORT; SAGA_HTTP_PORT is the nearest that there is",
        "unset SAGA_PREFECH; SAGA_PREFETCH is the nearest that there is",
    ]


def test_every_variable_of_the_containers_is_known(saga: Saga, files, monkeypatch):
    for name in re.findall(r"\$\{(SAGA_\w+)", (PROJECT / "compose.yaml").read_text()):
        if name != "SAGA_API_TOKEN":
            monkeypatch.setenv(name, "1")

    assert found(ask(saga, "payment"), "unknown setting") == []


def test_an_armed_crash_point_is_found(saga: Saga, files, monkeypatch):
    monkeypatch.setenv("SAGA_CRASH_AT", "committed")

    assert only(ask(saga, "payment"), "failpoint")["cure"] == "unset SAGA_CRASH_AT SAGA_CRASH_ON"


def test_an_open_address_without_a_token_is_found(saga: Saga, files, monkeypatch):
    monkeypatch.setenv("SAGA_HTTP_HOST", "0.0.0.0")

    row = only(ask(saga, "payment"), "api token")

    assert row["found"] == "SAGA_HTTP_HOST=0.0.0.0 is not this machine alone, and SAGA_API_TOKEN is not set"
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    assert found(ask(saga, "payment"), "api token") == []


# -- SQLite --------------------------------------------------------------------------------------------------------


def execute(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def test_files_as_they_should_be_end_with_zero(saga: Saga, files):
    result = ask(saga, "payment", "shipping")

    assert (result.exit_code, {each["verdict"] for each in json.loads(result.stdout)}) == (0, {"fine"})


def test_a_missing_table_is_found(saga: Saga, files):
    execute(files["payment"], "DROP TABLE outbox; DROP TABLE payment;")

    row = only(ask(saga, "payment"), "tables")

    assert (row["service"], row["found"]) == ("payment", "there is no table outbox, payment")
    assert row["cure"].startswith("saga run payment makes its tables")


def test_a_missing_column_is_found_and_its_cure_cures_it(saga: Saga, files):
    execute(files["payment"], "ALTER TABLE saga_log DROP COLUMN traceparent")

    row = only(ask(saga, "payment"), "columns")

    assert row["found"] == "the table saga_log has no column traceparent"
    execute(files["payment"], row["cure"])
    assert found(ask(saga, "payment"), "columns") == []


def test_a_missing_index_is_found_and_its_cure_cures_it(saga: Saga, files):
    execute(files["payment"], "DROP INDEX saga_log_by_saga")

    row = only(ask(saga, "payment"), "indexes")

    assert row["found"] == "the table saga_log has no index saga_log_by_saga"
    execute(files["payment"], row["cure"])
    assert found(ask(saga, "payment"), "indexes") == []


def test_a_step_that_was_renamed_is_found(saga: Saga, files):
    execute(files["payment"], "INSERT INTO known_steps VALUES ('payment', 'order', 'charge_card')")
    assert found(ask(saga, "payment"), "undeclared step") == [], "the log holds nothing of it"

    url = f"sqlite:///{files['payment']}"
    charged = entry("order-1", "payment", "charge_card", "completed", SagaState.PENDING, "InventoryReserved")
    asyncio.run(write_log(url, [charged]))
    row = only(ask(saga, "payment"), "undeclared step")
    assert row["found"] == "sagas are under way at a step that is not declared: order/charge_card (1 unfinished)"

    asyncio.run(write_log(url, [replace(charged, position=2, to_state="confirmed", saga_state=SagaState.COMPLETED)]))
    row = only(ask(saga, "payment"), "undeclared step", verdict="advice")
    assert row["found"] == "the log holds a step that is not declared: order/charge_card; its sagas have ended"


def test_a_copied_log_without_its_fence_is_found_and_its_cure_cures_it(saga: Saga, files):
    copy = "CREATE TABLE copy AS SELECT * FROM saga_log; DROP TABLE saga_log; ALTER TABLE copy RENAME TO saga_log;"
    execute(files["payment"], copy)

    rows = {each["found"]: each["cure"] for each in found(ask(saga, "payment"), "indexes")}

    fence = "the table saga_log has no unique key saga_log_fence"
    assert rows[fence] == "CREATE UNIQUE INDEX saga_log_fence ON saga_log (saga_type, saga_id, step, position);"
    execute(files["payment"], rows[fence])
    assert fence not in [each["found"] for each in found(ask(saga, "payment"), "indexes")]


def test_a_file_in_memory_is_not_durable(saga: Saga, files):
    place = Path("/dev/shm")
    if filesystem_of(place) != "tmpfs":
        pytest.skip("no /dev/shm in memory on this machine")
    path = place / f"saga-doctor-{files['payment'].parent.parent.name}.db"
    asyncio.run(make_tables(f"sqlite:///{path}", payment))
    try:
        row = only(ask(saga, f"--service=payment=sqlite:///{path}", "payment"), "SQLite durability")
    finally:
        for each in place.glob(f"{path.name}*"):
            each.unlink()

    assert row["found"] == f"{path} lies in memory (tmpfs)"
    assert row["cure"].startswith("stop the service, move the file to a disk")


def test_a_file_that_is_not_there_could_not_be_asked(saga: Saga, files):
    row = unchecked(ask(saga, "--service=payment=sqlite:////nowhere/payment.db", "payment"), "database")

    assert row["found"] == "/nowhere/payment.db: there is no file /nowhere/payment.db"


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


@pytest.fixture
def doctor_at(saga: Saga, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Ask of the payment service in a fresh database; the statements are executed there before."""
    monkeypatch.setenv("SAGA_BROKER_URL", "embedded")
    return lambda url: ask(saga, f"--service=payment={url}", "payment")


def spoilt(databases: PostgresDatabases, statements: str) -> str:
    """Return the URL of payment's database with fresh tables, in which these statements were executed."""

    async def make() -> str:
        url = await databases.url("payment")
        await databases.empty()
        await make_tables(url, payment)
        return url

    url = asyncio.run(make())
    execute_at(url, statements)
    return url


def execute_at(url: str, statements: str) -> None:
    """Execute these statements in a database; {} is its name."""

    async def execute() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statements.replace("{}", url.rpartition("/")[2]))
        await connection.close()

    asyncio.run(execute())


def test_commits_that_do_not_wait_for_the_disk_are_found_and_the_cure_cures_it(doctor_at, kept_databases):
    url = spoilt(kept_databases, 'ALTER DATABASE "{}" SET synchronous_commit = off')

    rows = found(doctor_at(url), "PostgreSQL durability")  # the server of the tests may do without fsync, too

    (cure,) = [each["cure"] for each in rows if each["found"].startswith("synchronous_commit is off")]
    assert cure == f'ALTER DATABASE "{url.rpartition("/")[2]}" RESET synchronous_commit'
    execute_at(url, cure)
    assert "synchronous_commit" not in str(found(doctor_at(url), "PostgreSQL durability"))


def test_a_database_with_too_few_connections_is_found_and_the_cure_cures_it(doctor_at, kept_databases):
    url = spoilt(kept_databases, 'ALTER DATABASE "{}" CONNECTION LIMIT 5')

    row = only(doctor_at(url), "connections")

    assert row["found"] == "the database's limit is 5 connections, and the pool may want 30"
    execute_at(url, row["cure"].partition(",")[0])
    assert found(doctor_at(url), "connections") == []


def test_a_database_of_an_older_release_is_found_and_the_cures_cure_it(doctor_at, kept_databases):
    url = spoilt(kept_databases, "ALTER TABLE saga_log DROP COLUMN traceparent; DROP INDEX saga_log_by_saga")

    result = doctor_at(url)

    cures = [only(result, "columns")["cure"], only(result, "indexes")["cure"]]
    execute_at(url, "".join(cures))
    assert found(doctor_at(url), "columns") + found(doctor_at(url), "indexes") == []


def test_a_well_known_password_of_the_database_is_found(doctor_at, kept_databases):
    row = only(doctor_at(spoilt(kept_databases, "SELECT 1")), "database password", verdict="advice")

    assert "lets in postgres, by " in row["found"]  # the tests' server takes any password, or postgres
    assert 'ALTER ROLE "postgres" PASSWORD' in row["cure"]


def test_a_database_that_does_not_answer_could_not_be_asked(doctor_at):
    row = unchecked(doctor_at("postgresql://ada:hush-hush@127.0.0.1:1/payment"), "database")

    assert row["found"].startswith("127.0.0.1:1: ")
    assert "hush-hush" not in json.dumps(row)


def test_a_database_whose_clock_is_an_hour_behind_is_found(doctor_at, kept_databases):
    behind = """
        CREATE SCHEMA behind;
        CREATE FUNCTION behind.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$;
        ALTER DATABASE "{}" SET search_path = behind, pg_catalog, public
    """
    url = spoilt(kept_databases, behind)

    row = only(doctor_at(url), "clock")

    assert row["found"].startswith("the clock of PostgreSQL at ")
    assert row["found"].endswith("s or more behind that of this machine")
    assert "timedatectl set-ntp true" in row["cure"]
    execute_at(url, 'ALTER DATABASE "{}" RESET search_path; DROP SCHEMA behind CASCADE')


# -- running services ----------------------------------------------------------------------------------------------


@contextmanager
def running(contract: Contract, *, ahead: timedelta = timedelta(0), ready: bool = True) -> Iterator[str]:
    """Run a service's API that tells this contract, on a machine whose clock is so far ahead."""

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    async def readyz(_: Request) -> JSONResponse:
        parts = {"broker": ready, "database": True, "relay": True}
        return JSONResponse(
            parts, status_code=200 if ready else 503, headers={"date": format_datetime(now(), usegmt=True)}
        )

    async def tell(_: Request) -> JSONResponse:
        return JSONResponse(json.loads(contract.model_dump_json()))

    async def snapshot(_: Request) -> JSONResponse:
        return JSONResponse({"service": contract.service, "at": now().isoformat()})

    async def letter(_: Request) -> JSONResponse:
        return JSONResponse({"error": "no token is set"}, status_code=403)

    routes = [Route("/readyz", readyz), Route("/contract", tell), Route("/stats", snapshot)]
    application = Starlette(routes=[*routes, Route("/dead-letters/{id}", letter)])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, date_header=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def embedded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_BROKER_URL", "embedded")


def of(*urls: str) -> list[str]:
    named = [f"--service={service.name}={url}" for service, url in zip((payment, shipping), urls, strict=False)]
    return [*named, *("payment", "shipping")[: len(urls)]]


def changed(contract: Contract, name: str, **changes: Any) -> Contract:
    event = contract.events[name].model_copy(update=changes)
    return contract.model_copy(update={"events": contract.events | {name: event}})


def test_two_versions_of_an_event_are_found(saga: Saga, embedded):
    newer = changed(Contract.of(payment), "PaymentProcessed", version=2)
    with running(newer) as first, running(Contract.of(shipping)) as second:
        row = only(ask(saga, *of(first, second)), "event version")

    assert (row["service"], row["found"]) == ("shipping", "PaymentProcessed is version 2 in payment, 1 in shipping")
    assert row["cure"].startswith("bring shipping up to date")


def test_two_shapes_of_one_version_are_found(saga: Saga, embedded):
    other = changed(Contract.of(payment), "PaymentProcessed", json_schema={"type": "object"})
    with running(other) as first, running(Contract.of(shipping)) as second:
        row = only(ask(saga, *of(first, second)), "event version")

    assert row["found"] == "PaymentProcessed has one version, 1, and different fields in payment, shipping"


def test_two_releases_of_the_toolkit_are_told(saga: Saga, embedded):
    older = Contract.of(payment).model_copy(update={"toolkit_version": "0.0.9"})
    with running(older) as first, running(Contract.of(shipping)) as second:
        row = only(ask(saga, *of(first, second)), "release", verdict="advice")

    assert row["found"].startswith("services run different releases: 0.0.9: payment; ")


def test_a_service_whose_clock_is_ahead_is_found(saga: Saga, embedded):
    with running(Contract.of(payment), ahead=timedelta(seconds=30)) as first, running(Contract.of(shipping)) as second:
        row = only(ask(saga, *of(first, second)), "clock")

    assert row["service"] == "payment"
    assert row["found"] in [
        f"the clock of payment is {n} s or more ahead of that of this machine" for n in (28, 29, 30)
    ]


def test_when_all_others_agree_it_is_this_machine_whose_clock_is_wrong(saga: Saga, embedded):
    ahead = timedelta(minutes=5)
    with running(Contract.of(payment), ahead=ahead) as first, running(Contract.of(shipping), ahead=ahead) as second:
        row = only(ask(saga, *of(first, second)), "clock")

    assert row["found"].startswith("the clock of this machine is ")
    assert row["found"].endswith(" s or more behind that of payment")


def test_a_service_that_lacks_a_part_is_found(saga: Saga, embedded):
    with running(Contract.of(payment), ready=False) as url:
        row = only(ask(saga, *of(url)), "service ready")

    assert row["found"] == f"{url} is without broker"


def test_a_service_that_does_not_answer_could_not_be_asked(saga: Saga, embedded):
    row = unchecked(ask(saga, *of("http://127.0.0.1:1")), "service ready")

    assert row["found"].startswith("http://127.0.0.1:1 does not answer as a service does: ")


def test_a_service_that_others_reach_without_a_token_is_found(saga: Saga, embedded):
    with running(Contract.of(payment)) as url:
        row = only(ask(saga, *of(url.replace("127.0.0.1", "0.0.0.0"))), "service token")

    assert row["found"].endswith(" is reached from elsewhere, and lets anybody read")


def test_the_token_of_the_demo_is_found_where_others_reach_the_service(saga: Saga, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.cli.conftest.TOKEN", DEMO_TOKEN)
    assert f"SAGA_API_TOKEN:-{DEMO_TOKEN}}}" in (PROJECT / "compose.yaml").read_text()
    with served("payment", f"sqlite:///{tmp_path}/payment.db") as url:
        row = only(ask(saga, *of(url.replace("127.0.0.1", "0.0.0.0"))), "service token")

    assert row["found"].endswith(" takes the token demo-token-everybody-knows, which everybody knows")
    assert row["cure"] == "start payment with SAGA_API_TOKEN=$(openssl rand -hex 32)"


def test_a_token_that_the_service_does_not_take_is_found(saga: Saga, embedded, serve, tmp_path, monkeypatch):
    url = serve("payment", f"sqlite:///{tmp_path}/payment.db")
    monkeypatch.setenv("SAGA_API_TOKEN", "yesterday's")

    row = only(ask(saga, *of(url)), "service token")

    assert row["found"] == f"{url} does not take our SAGA_API_TOKEN"
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    assert found(ask(saga, *of(url)), "service token") == []


# -- the command ---------------------------------------------------------------------------------------------------


def test_people_are_told_why_and_the_cure(saga: Saga, files):
    execute(files["payment"], "DROP TABLE outbox")

    result = saga("doctor", "payment")

    assert result.exit_code == 1
    assert [line.rstrip() for line in result.stdout.splitlines()][-3:] == [
        "✗  tables             payment  there is no table outbox",
        "                               why: the first message that needs one fails, again and again",
        "                               cure: saga run payment makes its tables, if SAGA_DATABASE_URL leads there",
    ]
    assert result.stderr == "10 checks; problems: 1, advice: 0, not checked: 0\n"


def test_programs_get_a_finding_a_line(saga: Saga, files):
    execute(files["payment"], "DROP TABLE outbox")

    lines = saga("doctor", "payment", "-o", "jsonl").stdout.splitlines()

    assert [json.loads(line) for line in lines if '"problem"' in line] == [
        {
            "verdict": "problem",
            "check": "tables",
            "service": "payment",
            "found": "there is no table outbox",
            "why": "the first message that needs one fails, again and again",
            "cure": "saga run payment makes its tables, if SAGA_DATABASE_URL leads there",
        }
    ]


def test_an_unknown_service_is_named(saga: Saga, files):
    result = saga("doctor", "paiment")

    assert result.exit_code == 2
    assert "there is no service paiment; there are: " in result.stderr


def test_without_any_service_there_is_nothing_to_examine(saga: Saga, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "tests")

    result = saga("doctor")

    assert result.exit_code == 2
    assert "no service is known here" in result.stderr


def test_the_guide_names_every_check_in_their_order():
    page = (PROJECT / "docs" / "how-to" / "doctor.md").read_text()

    headings = [line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")]

    assert headings == [each.name for each in CHECKS]
    assert all(f"{each.why[0].upper()}{each.why[1:]}." in " ".join(page.split()) for each in CHECKS)


def test_the_database_that_is_set_counts_before_a_file_that_lies_here(saga: Saga, files, monkeypatch):
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://ada@127.0.0.1:1/payment")

    assert unchecked(ask(saga, "payment"), "database")["found"].startswith("127.0.0.1:1: ")


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:99999", "http://:15672"])
def test_an_address_of_the_management_that_is_none_is_wrong_use(saga: Saga, files, monkeypatch, url: str):
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", url)

    result = ask(saga, "payment")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "SAGA_MANAGEMENT_URL is not allowed: give http://name:password@host:15672" in result.stderr


def test_something_else_that_answers_is_not_taken_for_a_service(saga: Saga, embedded):
    with running(Contract.of(payment)) as url:
        row = unchecked(ask(saga, *of(f"{url}/elsewhere")), "service ready")

    assert " does not answer as a service does: " in row["found"]


# -- patterns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["payment.Paid", "payment.*", "*.Paid", "#", "payment.#", "#.Paid", "payment.Paid.#"]
)
def test_a_binding_takes_what_its_pattern_says(pattern: str):
    assert matches(pattern, "payment.Paid")


@pytest.mark.parametrize("pattern", ["payment.Refused", "*", "payment", "payment.Paid.*", "shipping.#", "paymentXPaid"])
def test_a_binding_takes_nothing_else(pattern: str):
    assert not matches(pattern, "payment.Paid")
