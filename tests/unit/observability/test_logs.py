"""Logs go to standard error: one JSON object a line for machines, a readable line for people."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from toolkit import Settings
from toolkit.observability.logs import configure_logs


def test_a_machine_reads_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="json"))

    structlog.get_logger("toolkit").info("saga moved", saga_id="loan-1", to_state="completed")
    logging.getLogger("some.library").warning("disk %s full", "nearly")

    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert ours | {"timestamp": ""} == {
        "event": "saga moved", "saga_id": "loan-1", "to_state": "completed", "level": "info", "timestamp": ""
    }  # fmt: skip
    assert (theirs["event"], theirs["level"]) == ("disk nearly full", "warning")


def test_a_machine_reads_an_error_with_its_traceback_in_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="json"))

    try:
        raise RuntimeError("no ink")
    except RuntimeError:
        structlog.get_logger("toolkit").exception("step failed")

    (line,) = capsys.readouterr().err.splitlines()
    assert "RuntimeError: no ink" in json.loads(line)["exception"]


def test_a_person_reads_a_sentence_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="console"))

    structlog.get_logger("toolkit").info("saga moved", saga_id="loan-1")

    out, err = capsys.readouterr()
    assert "saga moved" in err
    assert "saga_id=loan-1" in err
    assert "\x1b[" not in err
    assert out == ""


def test_what_is_below_the_level_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_level="warning"))

    structlog.get_logger("toolkit").info("saga moved")
    logging.getLogger("some.library").info("all is well")
    logging.getLogger("aio_pika").error("connection lost, in forty lines")

    assert capsys.readouterr().err == ""
