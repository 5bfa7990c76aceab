"""Secrets may come from files, well-known ones need a local server, and none is ever shown."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from services.payment.gateway import GatewaySettings
from toolkit.configuration.environment import FromEnvironment, read_settings, secret_variable, shown_settings
from toolkit.configuration.settings import Settings, load_settings, misspelt_settings
from toolkit.errors import SettingsError

SECRET = "h-u-s-h"


def file_with(tmp_path: Path, text: str | bytes) -> str:
    """Return a file with this content."""
    path = tmp_path / "secret"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "variable", "value"),
    [
        (Settings, "SAGA_BROKER_URL", f"amqp://ada:{SECRET}@broker/"),
        (Settings, "SAGA_DATABASE_URL", f"postgresql://ada:{SECRET}@db/orders"),
        (Settings, "SAGA_API_TOKEN", f"{SECRET}-{'x' * 40}"),
        (GatewaySettings, "PAYMENT_GATEWAY_URL", f"postgresql://ada:{SECRET}@db/orders"),
    ],
)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_the_named_file(monkeypatch, tmp_path, kind, variable, value, ending):
    monkeypatch.setenv(f"{variable}_FILE", file_with(tmp_path, value + ending))

    settings = read_settings(kind)

    (shown,) = (each for each in shown_settings(settings) if each["variable"] == variable)
    prefix = kind.model_config["env_prefix"]
    found = getattr(settings, variable.removeprefix(prefix).lower())
    assert (found if isinstance(found, str) else found.get_secret_value()) == value
    assert shown["source"] == "file"
    assert SECRET not in str(shown) + repr(settings)


def test_every_secret_setting_may_come_from_files(monkeypatch, tmp_path):
    secrets = [name for name in Settings.model_fields if name.endswith(("url", "token"))]

    assert {"broker_url", "database_url", "api_token"} <= set(secrets)
    for name in secrets:
        monkeypatch.setenv(f"SAGA_{name.upper()}_FILE", str(tmp_path / "missing"))
        with pytest.raises(SettingsError, match=f"^SAGA_{name.upper()}_FILE="):
            load_settings()
        monkeypatch.delenv(f"SAGA_{name.upper()}_FILE")


@pytest.mark.parametrize("variable", ["SAGA_SERVICES", "SAGA_MANAGEMENT_URL"])
def test_other_secrets_may_come_from_files_too(monkeypatch, tmp_path, variable):
    monkeypatch.setenv(f"{variable}_FILE", file_with(tmp_path, f"http://ada:{SECRET}@h\n"))

    assert secret_variable(variable) == f"http://ada:{SECRET}@h"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"one\ntwo\n", "holds more than one line"),
        (b"x" * 70_000, "holds more than one line"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_file_without_a_secret_has_a_cure(monkeypatch, tmp_path, content, fault):
    path = file_with(tmp_path, content)
    monkeypatch.setenv("SAGA_API_TOKEN_FILE", path)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert str(caught.value).startswith(f"SAGA_API_TOKEN_FILE='{path}'")
    assert fault in str(caught.value)


def test_a_directory_is_no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("SAGA_API_TOKEN_FILE", str(tmp_path))

    with pytest.raises(SettingsError, match="can't be read: Is a directory; name a file that holds the value alone"):
        load_settings()


def test_a_secret_that_is_given_twice_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SAGA_API_TOKEN", SECRET)
    monkeypatch.setenv("SAGA_API_TOKEN_FILE", file_with(tmp_path, SECRET))

    with pytest.raises(SettingsError, match="SAGA_API_TOKEN and SAGA_API_TOKEN_FILE are both set: unset one of them"):
        load_settings()


def test_a_bad_value_names_its_file(monkeypatch, tmp_path):
    path = file_with(tmp_path, f"amqp://ada:{SECRET}@broker/?heartbeat=0\n")
    monkeypatch.setenv("SAGA_BROKER_URL_FILE", path)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    text = "".join(traceback.format_exception(caught.value))
    assert f"SAGA_BROKER_URL='amqp://ada:***@broker/?heartbeat=0', from {path}, is not allowed" in text
    assert SECRET not in text


@pytest.mark.parametrize("secret", ["h-u-s-h", "aC11LXMtaA==", "h/u-s-h", "0123456789abcdef" * 4])
@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize(
    ("kind", "variable"),
    [(Settings, "SAGA_BROKER_URL"), (Settings, "SAGA_DATABASE_URL"), (GatewaySettings, "PAYMENT_GATEWAY_URL")],
)
def test_a_secret_given_as_a_url_is_hidden(monkeypatch, tmp_path, kind, variable, from_file, secret):
    name, value = (f"{variable}_FILE", file_with(tmp_path, secret)) if from_file else (variable, secret)
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=rf"^{variable}='\*\*\*'.* is not allowed: give \w+:///?\w+") as caught:
        read_settings(kind)

    assert secret not in str(caught.value)


def test_a_secret_given_as_a_file_is_hidden(monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN_FILE", SECRET)

    with pytest.raises(SettingsError, match=r"^SAGA_API_TOKEN_FILE='\*\*\*' can't be read: No such file"):
        load_settings()


def test_the_variables_that_name_files_are_known():
    assert misspelt_settings({"SAGA_API_TOKEN_FILE": "/x", "SAGA_API_TOKN_FILE": "/x"}) == {
        "SAGA_API_TOKN_FILE": "SAGA_API_TOKEN_FILE"
    }


KNOWN = [
    ("SAGA_BROKER_URL", "amqp://guest:guest@broker:5672/"),
    ("SAGA_BROKER_URL", "amqps://payment:payment@10.0.0.1/"),
    ("SAGA_BROKER_URL", "amqp://ada:Guest@broker/"),
    ("SAGA_BROKER_URL", "amqp://pay%6Dent:payment@broker/"),
    ("SAGA_DATABASE_URL", "postgresql://postgres:postgres@db/orders"),
    ("SAGA_DATABASE_URL", "postgresql://db/orders?user=saga&password=saga"),
    ("SAGA_DATABASE_URL", "postgresql://saga:saga@127.0.0.1,db/orders"),
    ("SAGA_DATABASE_URL", "postgresql://saga:saga@/orders?host=db"),
]
#: The broker's client sends guest in place of what is missing.
INCOMPLETE = [
    "amqps://rabbitmq:5671/?cafile=/run/secrets/ca.crt", "amqp://rabbitmq/", "amqps://payment@rabbitmq/",
    "amqps://payment:@rabbitmq/", "amqps://:h-u-s-h@rabbitmq/",
]  # fmt: skip


@pytest.mark.parametrize(("variable", "url"), KNOWN)
def test_a_known_password_is_for_this_machine_alone(monkeypatch, variable, url):
    monkeypatch.setenv(variable, url)

    with pytest.raises(SettingsError, match=f"^{variable}=.* its password is well known.*SAGA_DEMO=1"):
        load_settings()

    monkeypatch.setenv("SAGA_DEMO", "1")
    assert load_settings().demo


@pytest.mark.parametrize("url", INCOMPLETE)
def test_a_broker_on_another_machine_needs_a_password(monkeypatch, url):
    monkeypatch.setenv("SAGA_BROKER_URL", url)

    with pytest.raises(SettingsError, match="it lacks a login or a password, in whose place the client sends the well"):
        load_settings()

    monkeypatch.setenv("SAGA_DEMO", "1")
    assert load_settings().demo


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("postgresql://payment@db/orders", {"PGPASSWORD": "payment"}),
        ("postgresql://db/orders", {"PGPASSWORD": "payment", "PGUSER": "payment"}),
        ("postgresql:///orders", {"PGPASSWORD": "Postgres", "PGHOST": "127.0.0.1,db"}),
    ],
)
def test_a_well_known_password_from_environment_is_refused(monkeypatch, url, environment):
    monkeypatch.setenv("SAGA_DATABASE_URL", url)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=r"^SAGA_DATABASE_URL=.*: PGPASSWORD is well known"):
        load_settings()

    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert load_settings().database_url == url


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("SAGA_BROKER_URL", "amqp://127.0.0.1/"),
        ("SAGA_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/"),
        ("SAGA_BROKER_URL", "amqp://guest:guest@[::1]/"),
        ("SAGA_BROKER_URL", "amqp://ada:h-u-s-h@broker/"),
        ("SAGA_DATABASE_URL", "postgresql://saga:saga@localhost/orders"),
        ("SAGA_DATABASE_URL", "postgresql://saga:saga@/orders?host=/run/postgresql"),
        ("SAGA_DATABASE_URL", "postgresql://saga@db/orders"),
        ("SAGA_DATABASE_URL", "sqlite:////srv/saga:saga@db/orders.db"),
    ],
)
def test_any_other_login_is_taken(monkeypatch, variable, url):
    monkeypatch.setenv(variable, url)

    settings = load_settings()

    assert url in (settings.broker_url, settings.database_url)


def test_the_sandbox_of_payment_refuses_known_passwords_too(monkeypatch):
    monkeypatch.setenv("PAYMENT_GATEWAY_URL", "postgresql://gateway:gateway@db/gateway")

    with pytest.raises(SettingsError, match=r"^PAYMENT_GATEWAY_URL=.*SAGA_DEMO=1"):
        read_settings(GatewaySettings)

    monkeypatch.setenv("SAGA_DEMO", "true")
    read_settings(GatewaySettings)


def test_no_settings_are_read_past_these_rules():
    kinds = {each.__name__ for each in FromEnvironment.__subclasses__()}

    assert {"Settings", "GatewaySettings"} <= kinds
    assert "SAGA_DEMO" not in os.environ
