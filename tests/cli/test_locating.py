"""Which services are read: by option, by environment, by the files that lie there; and one clear line if none is."""

from __future__ import annotations

import shutil
import sqlite3

import pytest


def test_the_environment_names_services(saga, logs, monkeypatch):
    monkeypatch.setenv("SAGA_SERVICES", f"payment={logs['payment']}, shipping={logs['shipping']}")

    result = saga("log", "inventory")

    assert "there are: payment, shipping" in result.stderr


def test_an_option_outweighs_the_environment(saga, logs, monkeypatch):
    monkeypatch.setenv("SAGA_SERVICES", f"payment={logs['payment']}")

    result = saga("log", "payment", f"--service=shipping={logs['shipping']}")

    assert "there are: shipping" in result.stderr


def test_files_without_a_saga_log_are_passed_over(saga, logs, data_dir):
    sqlite3.connect(data_dir / "gateway.db").execute("CREATE TABLE charge (key TEXT)").close()
    (data_dir / "notes.db").write_text("no database")

    result = saga("log", "gateway")

    assert "there are: inventory, notification, payment, shipping" in result.stderr


def test_last_demos_files_are_read_by_default(saga, logs, data_dir):
    shutil.move(data_dir, data_dir.with_name("demo"))
    data_dir.mkdir()
    shutil.move(data_dir.with_name("demo"), data_dir / "demo")

    result = saga("trace", "order-1")

    assert result.exit_code == 0


def test_no_service_names_the_ways_to_name_some(saga, data_dir):
    result = saga("trace", "order-1")

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert all(way in result.stderr for way in ("--service NAME=URL", "SAGA_SERVICES", "SAGA_DATA_DIR", "saga demo"))


def test_a_file_that_is_missing_is_not_created(saga, data_dir):
    result = saga("trace", "order-1", f"--service=payment=sqlite:///{data_dir}/payment.db")

    assert result.exit_code == 3
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("payment", "'payment' names no service: write NAME=URL"),
        ("payment=ftp://127.0.0.1", "the address of payment is not allowed: it begins with http://"),
        ("payment=http://", "the address of payment is no URL: http:// names no host"),
        ("payment=https://:8000/x", "the address of payment is no URL: https://:8000/x names no host"),
        ("payment=http://127.0.0.1:99999", "the address of payment is no URL"),
        ("payment=postgresql://h:abc/x", "the address of payment is no URL"),
        ("payment=postgresql://h:99999/x", "the address of payment is no URL"),
        ("payment=postgresql://h/x?colour=red", "the address of payment is no URL"),
        ("payment=http://127.0.0.1:port", "the address of payment is no URL"),
    ],
)
def test_an_address_that_is_none_is_wrong_use(saga, named, fault):
    result = saga("trace", "order-1", "--service", named)

    assert result.exit_code == 2
    assert fault in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["h-u-s-h", "aC11LXMtaA==", "payment=h-u-s-h"])
@pytest.mark.parametrize("from_file", [True, False])
def test_a_secret_in_place_of_services_is_hidden(saga, monkeypatch, tmp_path, text, from_file):
    (tmp_path / "secret").write_text(text)
    variable, value = ("SAGA_SERVICES_FILE", str(tmp_path / "secret")) if from_file else ("SAGA_SERVICES", text)
    monkeypatch.setenv(variable, value)

    result = saga("ls")

    assert result.exit_code == 2
    assert "SAGA_SERVICES is not allowed: '***' names no service: write NAME=URL" in result.stderr
    assert "h-u-s-h" not in result.stderr
    assert "aC11LXMtaA" not in result.stderr


def test_service_named_twice_is_wrong_use(saga, logs):
    result = saga("trace", "order-1", f"--service=payment={logs['payment']}", f"--service=payment={logs['shipping']}")

    assert result.exit_code == 2
    assert "payment is named twice" in result.stderr


def test_bad_setting_names_the_variable(saga, monkeypatch):
    monkeypatch.setenv("SAGA_BATCH_SIZE", "none")

    result = saga("ls")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: SAGA_BATCH_SIZE='none' is not allowed")
