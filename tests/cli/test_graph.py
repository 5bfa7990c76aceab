"""`saga graph` reads declarations alone."""

from __future__ import annotations


def test_shipped_services_are_drawn_as_text(saga):
    result = saga("graph")

    assert result.exit_code == 0
    assert result.stdout.startswith("saga order: OrderCreated → OrderFulfilled | OrderFailed")
    assert result.stderr == ""


def test_a_mermaid_chart_is_nothing_but_the_chart(saga):
    result = saga("graph", "--format", "mermaid")

    assert result.stdout.startswith("flowchart LR\n")
    assert result.stderr == ""


def test_missing_package_is_wrong_use(saga, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "elsewhere")

    result = saga("graph")

    assert result.exit_code == 2
    assert "there is no module 'elsewhere'" in result.stderr
    assert "SAGA_PACKAGE" in result.stderr
