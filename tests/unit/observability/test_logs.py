"""Logs go to standard error: one JSON object a line for machines, a readable line for people."""

from __future__ import annotations

import json
import logging

import pytest
import structlog
from structlog.testing import capture_logs

from toolkit import Settings
from toolkit.observability.logs import configure_logs


def test_json_logs_have_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="json"))

    structlog.get_logger("toolkit").info("saga moved", saga_id="loan-1", to_state="completed")
    logging.getLogger("some.library").warning("disk %s full", "nearly")

    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert ours | {"timestamp": ""} == {
        "event": "saga moved", "saga_id": "loan-1", "to_state": "completed", "level": "info", "timestamp": ""
    }  # fmt: skip
    assert (theirs["event"], theirs["level"]) == ("disk nearly full", "warning")


def test_json_logs_keep_tracebacks_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="json"))

    try:
        raise RuntimeError("no ink")
    except RuntimeError:
        structlog.get_logger("toolkit").exception("step failed")

    (line,) = capsys.readouterr().err.splitlines()
    assert "RuntimeError: no ink" in json.loads(line)["exception"]


def test_console_logs_have_a_sentence_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="console"))

    structlog.get_logger("toolkit").info("saga moved", saga_id="loan-1")

    out, err = capsys.readouterr()
    assert "saga moved" in err
    assert "saga_id=loan-1" in err
    assert "\x1b[" not in err
    assert out == ""


def test_lines_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_level="warning"))

    structlog.get_logger("toolkit").info("saga moved")
    logging.getLogger("some.library").info("all is well")
    logging.getLogger("aio_pika").error("connection lost, in forty lines")

    assert capsys.readouterr().err == ""


def test_a_later_configuration_reaches_loggers_already_used(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("toolkit")
    configure_logs(Settings(log_level="error", log_format="json"))
    log.error("saga needs an operator")
    configure_logs(Settings(log_level="info", log_format="json"))
    log.info("saga moved")
    structlog.reset_defaults()

    with capture_logs() as logs:
        log.info("saga noted")

    lines = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["saga needs an operator", "saga moved"]
    assert [line["event"] for line in logs] == ["saga noted"]
