"""`saga log` prints one service's log as it stands there."""

from __future__ import annotations

import json

from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.rows import field_names


def test_programs_get_exactly_the_shown_fields(saga, logs):
    result = saga("log", "payment", "-o", "json")

    entries = json.loads(result.stdout)
    assert result.exit_code == 0
    assert all(tuple(each) == field_names(LogEntry) for each in entries)
    assert [each["saga_id"] for each in entries] == ["order-1"] * 3 + ["order-2"] * 2 + ["order-3"] * 4


def test_log_of_one_saga_has_its_newest_entries(saga, logs):
    result = saga("log", "payment", "--saga", "order-3", "--limit", "2", "-o", "jsonl")

    assert [json.loads(line)["to_state"] for line in result.stdout.splitlines()] == ["compensated", "ended"]


def test_piped_table_is_neither_cut_nor_coloured(saga, logs):
    output = saga("log", "shipping").stdout

    assert "we do not ship to AQ" in output
    assert "\x1b" not in output
    assert "…" not in output


def test_the_log_is_the_same_over_http(saga, logs, serve):
    result = saga("log", "payment", "-o", "json", f"--service=payment={serve('payment', logs['payment'])}")

    assert result.stdout == saga("log", "payment", "-o", "json").stdout


def test_log_of_an_unknown_saga_is_empty(saga, logs):
    result = saga("log", "payment", "--saga", "order-404", "-o", "json")

    assert (result.exit_code, result.stdout.strip()) == (0, "[]")


def test_unknown_service_of_a_log_names_the_others(saga, logs):
    result = saga("log", "payments")

    assert result.exit_code == 2
    assert result.stderr == (
        "error: there is no service 'payments' to read; there are: inventory, notification, payment, shipping\n"
    )


def test_log_of_unreachable_service_ends_with_3(saga):
    result = saga("log", "payment", "--service=payment=http://127.0.0.1:1", "-o", "json")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("error: payment is unreachable: http://127.0.0.1:1 does not answer")
