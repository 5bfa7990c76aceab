"""A URL in any form is shown without its password, and by one function alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.cli.conftest import PROJECT
from toolkit.urls import is_loopback, shown_url

SECRET = "h-u-s-h"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://ada:h-u-s-h@broker:5672/vhost?heartbeat=6", "amqp://ada:***@broker:5672/vhost?heartbeat=6"),
        ("amqps://ada:h-u-s-h@broker/", "amqps://ada:***@broker/"),
        ("amqp://ada:p@h-u-s-h@broker/", "amqp://ada:***@broker/"),
        ("amqp://ada:p/h-u-s-h@broker/", "amqp://ada:***@broker/"),
        ("postgresql://ada:p?h-u-s-h@db/orders", "postgresql://ada:***@db/orders"),
        ("postgresql://ada:p#h-u-s-h@db/orders", "postgresql://ada:***@db/orders"),
        ("postgresql://ada:h-u-s-h%40@db/orders", "postgresql://ada:***@db/orders"),
        ("postgresql://ada%3Ah-u-s-h@db/orders", "postgresql://***@db/orders"),
        ("postgresql://ada@corp:h-u-s-h@db/orders", "postgresql://***@db/orders"),
        ("postgresql://ada@db/orders", "postgresql://ada@db/orders"),
        ("postgresql://ada:h-u-s-h@one:5432,two/orders", "postgresql://ada:***@one:5432,two/orders"),
        ("postgresql://ada:h-u-s-h@[::1]:5432/orders", "postgresql://ada:***@[::1]:5432/orders"),
        ("postgresql:///orders?host=/run/pg&user=ada&password=h-u-s-h", "postgresql:///orders?host=/run/pg&user=ada&password=***"),
        ("postgresql://db/orders?sslmode=require&sslpassword=h-u-s-h", "postgresql://db/orders?sslmode=require&sslpassword=***"),
        ("postgresql://db/orders?p%61ssword=h-u-s-h", "postgresql://db/orders?***"),
        ("postgresql://db/orders?sslmode=disable;password=h-u-s-h", "postgresql://db/orders?sslmode=***"),
        ("postgresql://db/orders?timeout=5#h-u-s-h", "postgresql://db/orders?timeout=5#***"),
        ("postgresql+asyncpg://ada:h-u-s-h@db/orders", "postgresql+asyncpg://ada:***@db/orders"),
        ("https://ada:h-u-s-h@payment.example/base", "https://***@payment.example/base"),
        ("https://h-u-s-h@payment.example/", "https://***@payment.example/"),
        ("http://127.0.0.1:8000/?token=h-u-s-h", "http://127.0.0.1:8000/?token=***"),
        ("amqp://ada:h-u-s-h", "amqp://ada:***"),
        ("amqp://ada:p/h-u-s-h", "amqp://ada:***"),
        ("amqp://ada h-u-s-h", "amqp://***"),
        ("ada:h-u-s-h@broker", "***"),
        ("amqp:/ada:h-u-s-h@broker", "***"),
        ("ada:h-u-s-h://broker", "***"),
        ("sqlite:////var/lib/a@b/saga.db", "sqlite:////var/lib/a@b/saga.db"),
        ("sqlite:///saga.db?key=h-u-s-h", "sqlite:///saga.db?key=***"),
        ("embedded", "embedded"),
        ("h-u-s-h", "***"),
        ("/srv/h-u-s-h", "***"),
        ("payment=h-u-s-h", "***"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_password(url, shown):
    assert shown_url(url) == shown
    assert SECRET not in shown_url(url)
    assert shown_url(shown) == shown


def test_only_this_machine_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "db.localhost", "/run/pg")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "postgres", "localhost.example", "")))


#: Functions that may use a URL in a text: `shown_url` itself, those that build URLs for connections, and request paths.
_BUILDERS = {"toolkit/urls.py", "toolkit/client/saga_client.py", "toolkit/doctor/probes/logins.py"}
_SHOWING = {"shown_url"}


def _urls_in_texts(source: str) -> Iterator[str]:
    """Yield each place where a name that ends in `url` is put into an f-string, error, log line or print as it is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FormattedValue):
            texts: list[ast.expr] = [node.value]
        elif isinstance(node, ast.Call) and _says(node.func):
            texts = [*node.args, *(keyword.value for keyword in node.keywords)]
        else:
            continue
        yield from (f"{node.lineno}: {name}" for text in texts if (name := _bare_url(text)))


def _says(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    said_by_log = name in ("debug", "info", "warning", "error", "exception", "critical")
    return said_by_log or name in ("print", "echo", "complain", "str", "repr") or name.endswith("Error")


def _bare_url(text: ast.expr) -> str | None:
    """Return the name of a URL that a text shows as it is; None where `shown_url` shows it."""
    if isinstance(text, ast.Call):
        function = text.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in _SHOWING:
            return None
        found = [*text.args, function.value] if isinstance(function, ast.Attribute) else text.args
        return next((name for each in found if (name := _bare_url(each))), None)
    name = text.attr if isinstance(text, ast.Attribute) else getattr(text, "id", "")
    return name if name.endswith("url") else None  # names in capitals are environment variables


def test_only_shown_url_puts_urls_into_texts():
    files = [path for place in ("toolkit", "services") for path in (PROJECT / place).rglob("*.py")]
    names = {str(path.relative_to(PROJECT)): path for path in files}
    found = [
        f"{name}:{each}"
        for name, path in names.items()
        if name not in _BUILDERS
        for each in _urls_in_texts(path.read_text())
    ]

    assert len(files) > 100
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'f"{self._url} is away"',
        'log.info("x", at=settings.broker_url)',
        "SettingsError(engine.url)",
        "str(url)",
        'f"{url.rstrip()!r}"',
    ],
)
def test_that_rule_finds_what_it_forbids(line):
    assert list(_urls_in_texts(line))
    assert not list(_urls_in_texts('f"{shown_url(self._url)} is away"'))
