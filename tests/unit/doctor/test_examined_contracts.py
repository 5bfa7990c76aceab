"""The doctor compares a service with what it declares under the settings of its process."""

from __future__ import annotations

from datetime import timedelta

from tests.example_sagas.orchestrated_travel import COORDINATOR, orchestrated_services
from tests.example_sagas.travel import Script
from toolkit import Settings
from toolkit.doctor.examination import _contract
from toolkit.doctor.targets import Target

HOTEL = orchestrated_services(Script())[0]


async def test_an_asked_service_has_its_commands_keys() -> None:
    settings = Settings(
        broker_url="embedded", asked_by={"*": COORDINATOR}, step_timeouts={"book_room": timedelta(seconds=7)}
    )

    contract = await _contract(Target(name="hotel", declared=HOTEL), settings)

    assert contract
    assert contract.bound_keys() == [f"{COORDINATOR}.{verb}.book_room" for verb in ("Ask", "Undo")]
    assert [each.timeout for each in contract.handlers if each.name == "book_room"] == [7]
