"""`saga config` says what each setting is, where it comes from, and nothing that is secret."""

from __future__ import annotations

import json

import pytest

from toolkit import Settings


def test_each_setting_is_told_with_its_source(saga, monkeypatch):
    monkeypatch.setenv("SAGA_RELAY_LEASE", "2min")
    monkeypatch.setenv("SAGA_STEP_TIMEOUTS", '{"process_payment": 5}')

    result = saga("config", "-o", "json")

    told = {each["variable"]: (each["value"], each["source"]) for each in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert told.keys() == {f"SAGA_{name.upper()}" for name in Settings.model_fields}
    assert told["SAGA_RELAY_LEASE"] == ("120s", "environment")
    assert told["SAGA_STEP_TIMEOUTS"] == ('{"process_payment": "5s"}', "environment")
    assert told["SAGA_PREFETCH"] == ("400", "default")
    assert told["SAGA_RETENTION"] == (None, "default")


def test_shown_settings_can_be_set_again(saga, monkeypatch):
    before = json.loads(saga("config", "-o", "json").stdout)
    for each in before:
        if each["value"] is not None and "***" not in each["value"]:
            monkeypatch.setenv(each["variable"], each["value"])

    after = json.loads(saga("config", "-o", "json").stdout)

    assert [each["value"] for each in after] == [each["value"] for each in before]


def test_no_password_and_no_token_is_shown(saga, monkeypatch):
    monkeypatch.setenv("SAGA_BROKER_URL", "amqp://ada:h-u-s-h@broker:5672/")
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://ada:h-u-s-h@database/orders")
    monkeypatch.setenv("SAGA_API_TOKEN", "h-u-s-h")

    result = saga("config")

    assert result.exit_code == 0
    assert "h-u-s-h" not in result.output
    assert "amqp://ada:***@broker:5672/" in result.stdout


def test_bad_value_is_named_and_ends_with_2(saga_process):
    result = saga_process("config", SAGA_PREFETCH="none")

    assert result.returncode == 2
    assert result.stderr.startswith("error: SAGA_PREFETCH='none' is not allowed")


@pytest.mark.parametrize(
    "address",
    [
        "http://ada:h-u-s-h@127.0.0.1:1/",
        "http://h-u-s-h@127.0.0.1:1/",
        "http://127.0.0.1:1/?token=h-u-s-h",
        "http://ada:h-u-s-h/",
        "postgresql://ada:h-u-s-h@127.0.0.1:1/orders",
        "postgresql://127.0.0.1:1/orders?user=ada&password=h-u-s-h",
        "postgresql://ada:h-u-s-h/orders",
        "sqlite:///no.db?key=h-u-s-h",
        "ftp://ada:h-u-s-h@127.0.0.1:1/",
    ],
)
@pytest.mark.parametrize(
    "verb", [("ls",), ("log", "payment"), ("dead-letters", "drop", "payment", "--all", "--reason", "x"), ("doctor",)]
)
def test_no_error_shows_an_addresss_password(saga, monkeypatch, address, verb):
    monkeypatch.setenv("SAGA_SERVICES", f"payment={address}")

    result = saga(*verb)

    assert result.exit_code != 0
    assert "h-u-s-h" not in result.output
