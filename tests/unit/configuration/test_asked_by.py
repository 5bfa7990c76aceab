"""SAGA_ASKED_BY names the coordinator of a service's steps: one for all its sagas, or one for each."""

from __future__ import annotations

import pytest

from tests.example_sagas.orchestrated_travel import orchestrated_services
from tests.example_sagas.travel import Script
from toolkit.configuration.settings import load_settings
from toolkit.declaration.contract import coordinators_of
from toolkit.errors import SettingsError

HOTEL, *_, COORDINATING = orchestrated_services(Script())


@pytest.mark.parametrize(
    ("text", "coordinators"),
    [
        ("", {}),
        ("travelplan", {"trip": "travelplan"}),
        ('{"trip": "travelplan"}', {"trip": "travelplan"}),
        ('{"order": "fulfillment"}', {}),
        ('{"order": "fulfillment", "*": "other"}', {"trip": "other"}),
    ],
)
def test_each_saga_has_its_coordinator(
    text: str, coordinators: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_ASKED_BY", text)

    asked_by = load_settings().asked_by

    assert coordinators_of(HOTEL, asked_by) == coordinators
    assert coordinators_of(COORDINATING, asked_by) == {}


@pytest.mark.parametrize("text", ["two words", '["a"]', '{"trip": 1}', '{"trip": "a.b"}', "{"])
def test_another_value_is_refused_with_an_example(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_ASKED_BY", text)

    with pytest.raises(SettingsError, match=r"SAGA_ASKED_BY=.*name a service, such as fulfillment"):
        load_settings()
