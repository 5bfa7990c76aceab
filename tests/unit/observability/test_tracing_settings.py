"""OpenTelemetry's own variables switch tracing on, name its endpoint, and are checked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from toolkit.errors import SettingsError
from toolkit.observability.broker_attributes import Broker
from toolkit.observability.tracing import tracing_for


@pytest.fixture(autouse=True)
def no_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")


def test_without_otel_its_sdk_is_not_imported():
    code = (
        "import sys, toolkit.service_process\n"
        "from toolkit.observability.broker_attributes import Broker\n"
        "from toolkit.observability.tracing import tracing_for\n"
        "assert tracing_for('library', Broker()) is None\n"
        "assert 'opentelemetry.sdk' not in sys.modules and 'opentelemetry.trace' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False)

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("variables", "is_on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "library"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_only_otels_variables_switch_tracing_on(variables: dict[str, str], is_on: bool, monkeypatch):
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    tracing = tracing_for("library", Broker())

    assert (tracing is not None) is is_on
    if tracing:
        tracing.shut_down(0.1)


@pytest.mark.parametrize(
    ("variables", "service"), [({}, "library"), ({"OTEL_SERVICE_NAME": "the-library"}, "the-library")]
)
def test_otel_service_name_overrides_the_services_name(variables, service: str, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    tracing = tracing_for("library", Broker())

    assert tracing.provider.resource.attributes["service.name"] == service
    tracing.shut_down(0.1)


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_unsupported_exporters_and_protocols_are_named(variable: str, value: str, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=f"{variable}.*{value}"):
        tracing_for("library", Broker())


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
@pytest.mark.parametrize("value", ["nonsense", "http://", "127.0.0.1:4318", "http://127.0.0.1:port", "ftp://spans"])
def test_an_invalid_endpoint_is_reported_with_an_example(variable: str, value: str, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=rf"^{variable} is not allowed: .*http://127\.0\.0\.1:4318"):
        tracing_for("library", Broker())
