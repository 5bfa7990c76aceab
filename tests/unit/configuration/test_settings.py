"""Settings come from the environment; the error of a bad one shows the allowed values."""

from __future__ import annotations

import re
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from toolkit.configuration.environment import shown_settings
from toolkit.configuration.server_urls import driver_options
from toolkit.configuration.settings import Settings, load_settings, misspelt_settings
from toolkit.errors import SettingsError
from toolkit.urls import shown_url


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("SAGA_BROKER_URL", "http://broker", "give amqp://user:password@host:port/vhost, or embedded"),
        ("SAGA_BROKER_URL", "amqp://h:abc/", "its port is not a number up to 65535"),
        ("SAGA_BROKER_URL", "amqp://h:99999/", "its port is not a number up to 65535"),
        ("SAGA_DATABASE_URL", "postgresql://h:abc/x", "its port is not a number up to 65535"),
        ("SAGA_DATABASE_URL", "postgresql://h:99999/x", "its port is not a number up to 65535"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?colour=red", "no parameter colour"),
        ("SAGA_DATA_DIR", __file__, "it is a file; name a directory"),
        ("SAGA_DATA_DIR", "", "name a directory"),
        ("SAGA_HTTP_HOST", "", "at least 1 character"),
        ("SAGA_STEP_TIMEOUTS", "lend_book=5", 'give a JSON object, such as {"my_step": "PT30S"}'),
        ("SAGA_STEP_TIMEOUTS", "[5]", "give a JSON object"),
        ("SAGA_STEP_TIMEOUTS", "[" * 100_000, "give a JSON object"),
        ("SAGA_LOGINS", "payment", 'give a JSON object, such as {"payment": ["payment"]}'),
        ("SAGA_DATABASE_URL", "mysql://root@db/orders", "give sqlite:///path, or postgresql://"),
        ("SAGA_EXCHANGE", "two words", "give 1 to 60 letters, digits"),
        ("SAGA_EXCHANGE", "", "give 1 to 60 letters, digits"),
        ("SAGA_PREFETCH", "0", "greater than or equal to 1"),
        ("SAGA_BATCH_SIZE", "1001", "less than or equal to 1000"),
        ("SAGA_BATCH_SIZE", "many", "valid integer"),
        ("SAGA_EXTERNAL_CONCURRENCY", "0", "greater than or equal to 1"),
        ("SAGA_RELAY_WINDOW", "-1", "greater than or equal to 1"),
        ("SAGA_RELAY_LEASE", "0", "greater than or equal to 1 second"),
        ("SAGA_RELAY_LEASE", "soon", "timedelta"),
        ("SAGA_RELAY_LEASE", "nan", "NaN values not permitted"),
        ("SAGA_RELAY_POLL", "PT2M", "less than or equal to 1 minute"),
        ("SAGA_STEP_REMINDERS", "decide=5", 'give a JSON object, such as {"my_step": "P1D"}'),
        ("SAGA_STEP_REMINDERS", '{"lend_book": -5}', "greater than or equal to"),
        ("SAGA_STEP_TIMEOUTS", '{"lend_book": "later"}', "timedelta"),
        ("SAGA_STEP_TIMEOUTS", '{"lend_book": -5}', "greater than or equal to"),
        ("SAGA_MAX_MESSAGE_BYTES", "1", "greater than or equal to 8192"),
        ("SAGA_HTTP_PORT", "70000", "less than or equal to 65535"),
        ("SAGA_LOG_FORMAT", "xml", "'json' or 'console'"),
        ("SAGA_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_bad_value_names_variable_and_allowed_values(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert str(caught.value).startswith(f"{variable}=")
    shown = {"PT2M": "120 s", "0": "0", '{"lend_book": -5}': "-5", '{"lend_book": "later"}': "later"}.get(value, value)[
        :100
    ]
    assert (shown_url(shown) if "://" in shown else shown) in str(caught.value)
    assert allowed in str(caught.value)


def test_a_bad_timeout_is_named_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_STEP_TIMEOUTS", '{"lend_book": -5, "take_back": 5}')

    with pytest.raises(SettingsError, match=r"^SAGA_STEP_TIMEOUTS=-5 for lend_book is not allowed"):
        load_settings()


def test_a_bad_address_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://saga:secret@h:99999/x")

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert "saga:***@h" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SAGA_BROKER_URL", "amqp://ada:h-u/s-h@broker/"),
        ("SAGA_BROKER_URL", "ada:h-u-s-h@broker"),
        ("SAGA_BROKER_URL", "amqp://ada:h-u-s-h@broker/?heartbeat=0"),
        ("SAGA_DATABASE_URL", "postgresql://ada:h-u-s-h/orders"),
        ("SAGA_DATABASE_URL", "postgresql://db/orders?password=h-u-s-h&colour=red"),
        ("SAGA_DATABASE_URL", "postgresql://ada:p@h-u-s-h@db:99999/orders"),
        ("SAGA_PREFETCH", "amqp://ada:h-u-s-h@broker/"),
    ],
)
def test_a_bad_values_password_is_never_shown(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    text = "".join(traceback.format_exception(caught.value))
    assert variable in text
    assert not any(part in text for part in ("h-u", "s-h"))


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_PREFETCH", "0")
    monkeypatch.setenv("SAGA_LOG_LEVEL", "loud")

    with pytest.raises(SettingsError, match=r"SAGA_PREFETCH=.*; SAGA_LOG_LEVEL="):
        load_settings()


@pytest.mark.parametrize(("value", "seconds"), [("5", 5), ("PT5S", 5), ("2.5", 2.5), ("PT1M", 60)])
def test_a_duration_is_seconds_or_iso_8601(monkeypatch: pytest.MonkeyPatch, value: str, seconds: float) -> None:
    monkeypatch.setenv("SAGA_RELAY_LEASE", value)

    assert load_settings().relay_lease == timedelta(seconds=seconds)


def test_a_steps_timeouts_are_durations_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_STEP_TIMEOUTS", '{"lend_book": 5, "take_back": "PT1M", "register": "7"}')

    assert load_settings().step_timeouts == {
        "lend_book": timedelta(seconds=5),
        "take_back": timedelta(minutes=1),
        "register": timedelta(seconds=7),
    }


@pytest.mark.parametrize(
    ("logins", "allowed"),
    [
        ('"payment"', 'give a list of logins, such as ["payment"]'),
        ("[]", "leave out an owner whose events anyone may send"),
        ('["", "b"]', "give a list of logins"),
        (f'["{"x" * 256}"]', "it has more than 255 bytes"),
    ],
)
def test_bad_logins_are_named_with_their_owner(monkeypatch: pytest.MonkeyPatch, logins: str, allowed: str) -> None:
    monkeypatch.setenv("SAGA_LOGINS", f'{{"payment": {logins}}}')

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert str(caught.value).startswith("SAGA_LOGINS=")
    assert " for payment is not allowed: " in str(caught.value)
    assert allowed in str(caught.value)


def test_logins_are_lists_by_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_LOGINS", '{"payment": ["payment", "payment-2"]}')

    settings = load_settings()

    assert settings.logins == {"payment": ("payment", "payment-2")}
    (shown,) = [each["value"] for each in shown_settings(settings) if each["variable"] == "SAGA_LOGINS"]
    assert shown == '{"payment": ["payment", "payment-2"]}'


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("amqp://127.0.0.1/", "guest"),
        ("amqp://payment:secret@127.0.0.1/", "payment"),
        ("amqps://pay%40ment:a@host/", "pay@ment"),
    ],
)
def test_the_login_is_the_urls(url: str, login: str) -> None:
    assert Settings(broker_url=url).login == login


def test_without_a_database_each_service_has_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    own = load_settings(data_dir=Path("/var/lib/saga"))
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://db/library")
    set_ = load_settings()

    assert own.database_for("library") == "sqlite:////var/lib/saga/library.db"
    assert set_.database_for("library") == "postgresql://db/library"


def test_the_schema_is_a_part_of_the_databases_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def url(database: str | None, schema: str) -> str:
        return Settings(database_url=database, database_schema=schema).database_for("library")

    assert url("postgresql://db/library", "workflow") == "postgresql://db/library?schema=workflow"
    assert url("postgresql://db/library?timeout=3", "workflow") == "postgresql://db/library?timeout=3&schema=workflow"
    assert url("postgresql://db/library?schema=own", "workflow") == "postgresql://db/library?schema=own"
    with pytest.raises(SettingsError, match="SAGA_DATABASE_SCHEMA=workflow is not allowed: SQLite has no schemas"):
        url(None, "workflow")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SAGA_DATABASE_SCHEMA", "of team", "'of team' is not allowed"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?schema=a%20b", "schema is a name of up to 63 letters"),
        ("SAGA_DATABASE_URL", "sqlite:///x.db?schema=a", "SQLite's address takes no parameters; leave out schema"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?bogus=1", "takes no parameter bogus; it takes command_timeout"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?server_settings=a", "takes no parameter server_settings"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?connection_class=a", "takes no parameter connection_class"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?statement_cache_size=none", "statement_cache_size is a number"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?statement_cache_size=-1", "statement_cache_size lies between 0"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?timeout=0", "timeout lies between 1"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?command_timeout=nan", "command_timeout lies between 1"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?timeout=1&timeout=2", "timeout is a number, given once"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?sslmode=bogus", "sslmode is one of disable, allow, prefer"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?ssl=true", "ssl is one of disable, allow, prefer"),
        ("SAGA_DATABASE_URL", "postgresql://h/x?target_session_attrs=x", "target_session_attrs is one of any, primary"),
        ("SAGA_DATABASE_URL", "sqlite:///x.db?mode=ro", "takes no parameters; leave out mode"),
        ("SAGA_BROKER_URL", "amqp://ada:h-u-s-h@h/?heartbeat=0", "give whole seconds from 1"),
        ("SAGA_BROKER_URL", "amqp://ada:h-u-s-h@h/?heartbeat=soon", "give whole seconds from 1"),
        ("SAGA_BROKER_URL", "amqp://ada:h-u-s-h@h/?heartbeat=", "give whole seconds from 1"),
    ],
)
def test_a_parameter_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=re.escape(message)):
        load_settings()


def test_a_database_urls_numbers_reach_the_driver() -> None:
    url = make_url("postgresql://h/x?statement_cache_size=0&timeout=2.5&sslmode=require")

    plain, options = driver_options(url)

    assert dict(plain.query) == {"ssl": "require"}
    assert options == {"statement_cache_size": 0, "timeout": 2.5}


def test_a_misspelt_variable_names_its_setting() -> None:
    environment = {"SAGA_RETENSION": "30d", "SAGA_PORT_80_TCP": "tcp://10.0.0.1", "SAGA_PREFETCH": "5", "HOME": "/"}

    assert misspelt_settings(environment) == {"SAGA_RETENSION": "SAGA_RETENTION"}
