"""`saga doctor` finds errors in the environment variables, each with its cure."""

from __future__ import annotations

import re

from tests.cli.conftest import PROJECT, TOKEN
from tests.cli.doctor.findings import found, only


def test_a_mistyped_setting_is_found_with_the_nearest(doctor, files, monkeypatch):
    monkeypatch.setenv("SAGA_PREFECH", "10")
    monkeypatch.setenv("SAGA_HTPP_PORT", "8080")
    monkeypatch.setenv("SAGA_QUITE_UNKNOWN", "8080")

    rows = found(doctor("payment"), "unknown setting")

    assert [each["cure"] for each in rows] == [
        "unset SAGA_HTPP_PORT; the nearest setting is SAGA_HTTP_PORT",
        "unset SAGA_PREFECH; the nearest setting is SAGA_PREFETCH",
        "unset SAGA_QUITE_UNKNOWN; `saga config` lists all settings",
    ]


def test_every_variable_of_the_containers_is_known(doctor, files, monkeypatch):
    for name in re.findall(r"\$\{(SAGA_\w+)", (PROJECT / "compose.yaml").read_text()):
        if name != "SAGA_API_TOKEN":
            monkeypatch.setenv(name, "1")

    assert found(doctor("payment"), "unknown setting") == []


def test_an_armed_failpoint_is_found(doctor, files, monkeypatch):
    monkeypatch.setenv("SAGA_CRASH_AT", "committed")

    assert only(doctor("payment"), "failpoint")["cure"] == "`unset SAGA_CRASH_AT SAGA_CRASH_ON`"


def test_an_open_address_without_a_token_is_found(doctor, files, monkeypatch):
    monkeypatch.setenv("SAGA_HTTP_HOST", "0.0.0.0")

    row = only(doctor("payment"), "api token")

    assert row["found"] == "SAGA_HTTP_HOST=0.0.0.0 is not this machine alone, and SAGA_API_TOKEN is not set"
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    assert found(doctor("payment"), "api token") == []
