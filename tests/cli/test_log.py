"""`saga log` prints one service's log as it stands there."""

from __future__ import annotations

import json

from toolkit.protocol.log_entry import LogEntry, field_names


def test_programs_get_exactly_the_fields_that_a_reader_sees(saga, logs):
    result = saga("log", "payment", "-o", "json")

    entries = json.loads(result.stdout)
    assert result.exit_code == 0
    assert all(tuple(each) == field_names(LogEntry) for each in entries)
    assert [each["saga_id"] for each in entries] == ["order-1"] * 3 + ["order-2"] * 2 + ["order-3"] * 4


def test_one_saga_can_be_picked_and_the_newest_entries_of_it(saga, logs):
    result = saga("log", "payment", "--saga", "order-3", "--limit", "2", "-o", "jsonl")

    assert [json.loads(line)["to_state"] for line in result.stdout.splitlines()] == ["compensated", "ended"]


def test_a_table_in_a_pipe_is_neither_cut_nor_coloured(saga, logs):
    output = saga("log", "shipping").stdout

    assert "we do not ship to AQ" in output
    assert "\x1b" not in output
    assert "…" not in output


def test_the_log_is_the_same_over_http(saga, logs, serve):
    result = saga("log", "payment", "-o", "json", f"--service=payment={serve('payment', logs['payment'])}")

    assert result.stdout == saga("log", "payment", "-o", "json").stdout


def test_a_saga_that_the_service_never_saw_is_an_empty_log(saga, logs):
    result = saga("log", "payment", "--saga", "order-404", "-o", "json")

    assert (result.exit_code, result.stdout.strip()) == (0, "[]")


def test_a_service_that_is_unknown_is_wrong_use_and_names_the_others(saga, logs):
    result = saga("log", "payments")

    assert result.exit_code == 2
    assert result.stderr == (
        "error: there is no service 'payments' to read; there are: inventory, notification, payment, shipping\n"
    )


def test_a_service_that_is_away_ends_with_3_and_prints_no_data(saga):
    result = saga("log", "payment", "--service=payment=http://127.0.0.1:1", "-o", "json")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("error: payment is unreachable: http://127.0.0.1:1 does not answer")
