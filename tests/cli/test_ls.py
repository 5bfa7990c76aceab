"""`saga ls` lists sagas as all services together see them."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import service_options


def test_each_saga_is_listed_once_with_merged_state(saga, logs):
    result = saga("ls", "-o", "json")

    assert result.exit_code == 0
    listed = {each["saga_id"]: each for each in json.loads(result.stdout)}
    assert {name: (each["state"], each["last_step"], each["last_state"]) for name, each in listed.items()} == {
        "order-1": ("Completed", "send_confirmation", "completed"),
        "order-2": ("Pending", "process_payment", "completed"),
        "order-3": ("Failed", "send_cancellation_notice", "completed"),
    }


@pytest.mark.parametrize(("state", "ids"), [("Completed", ["order-1"]), ("Pending", ["order-2"]), ("Started", [])])
def test_state_filter_uses_the_merged_state(saga, logs, state, ids):
    result = saga("ls", "--state", state, "-o", "json")

    assert [each["saga_id"] for each in json.loads(result.stdout)] == ids


def test_a_limit_bounds_the_list(saga, logs):
    lines = saga("ls", "--limit", "2", "-o", "jsonl").stdout.splitlines()

    assert len(lines) == 2
    assert {"saga_id", "saga_type", "state", "last_step", "age"} <= set(json.loads(lines[0]))


def test_table_has_headings_and_a_line_per_saga(saga, logs):
    lines = saga("ls").stdout.splitlines()

    assert lines[0].split() == ["saga", "id", "saga", "type", "state", "last", "step", "last", "state", "age"]
    assert len(lines) == 4


def test_http_lists_the_same_sagas_as_databases(saga, logs, serve):
    named = {name: serve(name, url) for name, url in logs.items()}

    result = saga("ls", "--state", "Failed", "-o", "json", *service_options(named))

    assert [each["saga_id"] for each in json.loads(result.stdout)] == ["order-3"]


def test_list_without_a_service_names_it(saga, logs):
    result = saga("ls", "-o", "jsonl", *service_options(logs | {"notification": "http://127.0.0.1:1"}))

    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 3
    assert "warning: notification is unreachable" in result.stderr


def test_unknown_state_names_the_known_ones(saga, logs):
    result = saga("ls", "--state", "Lost")

    assert result.exit_code == 2
    assert "Compensating" in result.stderr
