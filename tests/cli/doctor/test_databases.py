"""`saga doctor` at real databases: each misconfiguration is really made, and found with its cure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.payment.app import app as payment
from tests.cli.conftest import write_log
from tests.cli.doctor.findings import found, only, unchecked
from tests.cli.doctor.spoilt_databases import execute, execute_at, make_tables, spoilt
from tests.orders import entry
from toolkit.declaration.events import SagaState
from toolkit.doctor.probes.places import filesystem_of

# -- SQLite --------------------------------------------------------------------------------------------------------


def test_correct_files_end_with_zero(doctor, files):
    result = doctor("payment", "shipping")

    assert (result.exit_code, {each["severity"] for each in json.loads(result.stdout)}) == (0, {"fine"})


def test_missing_tables_are_found(doctor, files):
    execute(files["payment"], "DROP TABLE saga_outbox; DROP TABLE payment;")

    row = only(doctor("payment"), "tables")

    assert (row["service"], row["found"]) == ("payment", "there is no table saga_outbox, payment")
    assert row["cure"].startswith("`saga run payment` creates its tables")


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ("ALTER TABLE saga_log DROP COLUMN traceparent", "column traceparent"),
        ("DROP INDEX saga_log_by_time", "index saga_log_by_time"),
    ],
)
def test_a_missing_part_of_a_table_is_cured(doctor, files, change: str, lack: str):
    execute(files["payment"], change)

    row = only(doctor("payment"), "tables")

    assert row["found"] == f"the table saga_log has no {lack}"
    execute(files["payment"], row["cure"])
    assert found(doctor("payment"), "tables") == []


def test_a_copied_log_without_its_fence_is_cured(doctor, files):
    copy = "CREATE TABLE copy AS SELECT * FROM saga_log; DROP TABLE saga_log; ALTER TABLE copy RENAME TO saga_log;"
    execute(files["payment"], copy)

    rows = {each["found"]: each["cure"] for each in found(doctor("payment"), "tables")}

    fence = "the table saga_log has no unique key saga_log_fence"
    assert rows[fence] == "CREATE UNIQUE INDEX saga_log_fence ON saga_log (saga_id, saga_type, step, position);"
    execute(files["payment"], rows[fence])
    assert fence not in [each["found"] for each in found(doctor("payment"), "tables")]


def test_tables_of_another_version_are_found(doctor, files):
    execute(files["payment"], "UPDATE saga_schema_version SET version_num = '0001'")
    row = only(doctor("payment"), "tables")
    assert row["found"] == "the toolkit's tables have version 0001, and this release needs 0002"
    assert row["cure"] == "stop the service's processes, and run `saga db upgrade payment`"

    execute(files["payment"], "UPDATE saga_schema_version SET version_num = '0099'")
    row = only(doctor("payment"), "tables")
    assert (row["found"].partition(":")[0], row["cure"]) == (
        "a newer release made the toolkit's tables",
        "run that release again, or a later one",
    )


def test_a_renamed_step_is_found(doctor, files):
    execute(files["payment"], "INSERT INTO saga_known_steps VALUES ('payment', 'order', 'charge_card')")
    assert found(doctor("payment"), "undeclared step") == [], "the log has no entry of it"

    url = f"sqlite:///{files['payment']}"
    charged = entry("order-1", "payment", "charge_card", "completed", SagaState.PENDING, "InventoryReserved")
    asyncio.run(write_log(url, [charged]))
    row = only(doctor("payment"), "undeclared step")
    assert row["found"] == "sagas are under way at a step that is not declared: order/charge_card (1 unfinished)"
    assert row["cure"] == "declare charge_card until its sagas have ended; payment does not start without it"

    asyncio.run(write_log(url, [replace(charged, position=2, to_state="confirmed", saga_state=SagaState.COMPLETED)]))
    row = only(doctor("payment"), "undeclared step", severity="advice")
    assert row["found"] == "the log has a step that is not declared: order/charge_card; its sagas have ended"


def test_a_file_in_memory_is_not_durable(doctor, files):
    place = Path("/dev/shm")
    if filesystem_of(place) != "tmpfs":
        pytest.skip("no /dev/shm in memory on this machine")
    path = place / f"saga-doctor-{files['payment'].parent.parent.name}.db"
    asyncio.run(make_tables(f"sqlite:///{path}", payment))
    try:
        row = only(doctor(f"--service=payment=sqlite:///{path}", "payment"), "SQLite durability")
    finally:
        for each in place.glob(f"{path.name}*"):
            each.unlink()

    assert row["found"] == f"{path} is in memory (tmpfs)"
    assert row["cure"].startswith("stop the service, move the file to a disk")


def test_a_missing_file_is_unchecked(doctor, files):
    row = unchecked(doctor("--service=payment=sqlite:////nowhere/payment.db", "payment"), "database")

    assert row["found"] == "/nowhere/payment.db: there is no file /nowhere/payment.db"


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


@pytest.fixture
def doctor_at(doctor, embedded) -> Callable[..., Any]:
    """The findings for the payment service with its database at a URL."""
    return lambda url, *options: doctor(f"--service=payment={url}", "payment", *options)


def test_commits_that_skip_the_disk_are_cured(doctor_at, kept_databases):
    url = spoilt(kept_databases, 'ALTER DATABASE "{}" SET synchronous_commit = off')

    rows = found(doctor_at(url), "PostgreSQL durability")  # the server of the tests may run without fsync, too

    (cure,) = [each["cure"] for each in rows if each["found"].startswith("synchronous_commit is off")]
    assert cure == f'ALTER DATABASE "{url.rpartition("/")[2]}" RESET synchronous_commit'
    execute_at(url, cure)
    assert "synchronous_commit" not in str(found(doctor_at(url), "PostgreSQL durability"))


def test_a_database_with_too_few_connections_is_cured(doctor_at, kept_databases):
    url = spoilt(kept_databases, 'ALTER DATABASE "{}" CONNECTION LIMIT 5')

    row = only(doctor_at(url), "connections")

    assert row["found"] == "the database's limit is 5 connections, and the pool may need 30"
    execute_at(url, row["cure"].partition(",")[0])
    assert found(doctor_at(url), "connections") == []


def test_a_database_of_an_older_release_is_cured(doctor_at, kept_databases):
    url = spoilt(kept_databases, "ALTER TABLE saga_log DROP COLUMN traceparent; DROP INDEX saga_log_by_time")

    rows = found(doctor_at(url), "tables")

    assert len(rows) == 2
    execute_at(url, "".join(each["cure"] for each in rows))
    assert found(doctor_at(url), "tables") == []


def test_a_well_known_database_password_is_found(doctor_at, kept_databases):
    row = only(doctor_at(spoilt(kept_databases, "SELECT 1"), "--probe"), "database password", severity="advice")

    assert " accepts postgres, by " in row["found"]  # the tests' server takes any password, or postgres
    assert 'ALTER ROLE "postgres" PASSWORD' in row["cure"]


def test_a_database_that_does_not_answer_is_unchecked(doctor_at):
    row = unchecked(doctor_at("postgresql://ada:hush-hush@127.0.0.1:1/payment"), "database")

    assert row["found"].startswith("127.0.0.1:1: ")
    assert "hush-hush" not in json.dumps(row)


def test_a_database_clock_an_hour_behind_is_found(doctor_at, kept_databases):
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
