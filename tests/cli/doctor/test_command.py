"""The output of `saga doctor`, its arguments, and what it leaves out without `--probe`."""

from __future__ import annotations

import json

import pytest

from tests.cli.doctor.findings import unchecked
from tests.cli.doctor.spoilt_databases import execute
from toolkit.doctor import CHECKS

PROBES = [each.name for each in CHECKS if each.is_probe]


def test_the_table_shows_reason_and_cure(saga, files):
    execute(files["payment"], "DROP TABLE saga_outbox")

    result = saga("doctor", "payment")

    assert result.exit_code == 1
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[-3] == "✗  tables             payment  there is no table saga_outbox"
    assert lines[-2].startswith(f"{' ' * 31}why: without a table or a column messages fail")
    assert lines[-1] == f"{' ' * 31}cure: `saga run payment` creates its tables, if SAGA_DATABASE_URL leads there"
    assert result.stderr.splitlines()[0] == "8 checks; problems: 1, advice: 0, not checked: 0"


def test_jsonl_has_one_finding_a_line(saga, files):
    execute(files["payment"], "DROP TABLE saga_outbox")

    lines = saga("doctor", "payment", "-o", "jsonl").stdout.splitlines()

    (row,) = [json.loads(line) for line in lines if '"problem"' in line]
    assert row.pop("why").startswith("without a table")
    assert row == {
        "severity": "problem",
        "check": "tables",
        "service": "payment",
        "found": "there is no table saga_outbox",
        "cure": "`saga run payment` creates its tables, if SAGA_DATABASE_URL leads there",
    }


def test_one_line_names_the_probes_left_out(saga, files):
    result = saga("doctor", "payment", "-o", "json")

    assert result.stderr.splitlines()[1:] == [f"only with --probe: {', '.join(PROBES)}"]
    assert not {each["check"] for each in json.loads(result.stdout)} & set(PROBES)
    assert "--probe" not in saga("doctor", "payment", "--probe").stderr


def test_probes_are_passwords_and_messages():
    assert [
        *("broker password", "right to publish", "returns", "message size"),
        *("database password", "demo token"),
    ] == PROBES


def test_an_unknown_service_is_named(saga, files):
    result = saga("doctor", "paiment")

    assert result.exit_code == 2
    assert "there is no service paiment; there are: " in result.stderr


def test_without_any_service_the_command_is_wrong_use(saga, data_dir, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "tests")

    result = saga("doctor")

    assert result.exit_code == 2
    assert "no service is known here" in result.stderr


def test_the_set_database_precedes_a_file_here(doctor, files, monkeypatch):
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://ada@127.0.0.1:1/payment")

    assert unchecked(doctor("payment"), "database")["found"].startswith("127.0.0.1:1: ")


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:99999", "http://:15672"])
def test_a_wrong_management_url_is_wrong_use(doctor, files, monkeypatch, url: str):
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", url)

    result = doctor("payment")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "SAGA_MANAGEMENT_URL is not allowed: give http://name:password@host:15672" in result.stderr
