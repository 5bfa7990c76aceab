"""mypy in strict mode and pyright pass a user's declarations, and find the wrong ones."""

from __future__ import annotations

import pytest

from tests.distribution.checkers import mypy, pyright
from tests.docs.pages import DOCS, README, blocks

PAGES = ("your-own-saga", "answers", "middleware", "parallel-branches")
(SAGA,) = (each.text for each in blocks("python", README) if "Participant(" in each.text)

#: What the pages have only for the services of the checkout, which are not installed.
COORDINATED = f"""{SAGA}

from toolkit import SagaOrchestrator, SagaStep, Service, Settings

class Booking(SagaOrchestrator, saga=trip):
    failed_end = SagaStep("cancel_trip")

    def define_steps(self, data: TripBooked) -> list[SagaStep]:
        return [SagaStep("reserve_seat"), SagaStep("reserve_room")]

class WithoutEnd(Booking): ...

Service(name="booking", orchestrators=[Booking, WithoutEnd])
Settings(broker_url="amqp://127.0.0.1/", exchange="trips", workers=2)

async def test_a_large_party_is_refused() -> None:
    answer = await reserve_room(SeatReserved(trip_id="t-1", guests=5))
    assert isinstance(answer, HotelFull) and answer.reason == "no room for 5 guests"
"""

#: A wrong declaration instead of a right one in the README's saga: both checkers find it, in the line that it begins.
WRONG = {
    "event_that_the_step_does_not_return": (
        "    return SeatReserved(trip_id=event.trip_id, guests=event.guests)",
        "    return SeatReleased(trip_id=event.trip_id)",
    ),
    "return_type_that_is_no_event": (
        "async def cancel_trip(event: SeatReleased) -> TripCancelled:\n    return TripCancelled(trip_id=event.trip_id)",
        "async def cancel_trip(event: SeatReleased) -> str:\n    return event.trip_id",
    ),
    "step_that_may_return_nothing": (
        "async def cancel_trip(event: SeatReleased) -> TripCancelled:",
        "async def cancel_trip(event: SeatReleased) -> TripCancelled | None:",
    ),
    "step_that_is_no_coroutine_function": ("async def cancel_trip", "def cancel_trip"),
    "step_that_takes_no_event": ("async def cancel_trip(event: SeatReleased)", "async def cancel_trip(event: Saga)"),
    "step_that_waits_for_nothing": (
        "async def cancel_trip(event: SeatReleased) -> TripCancelled:\n    return TripCancelled(trip_id=event.trip_id)",
        'async def cancel_trip() -> TripCancelled:\n    return TripCancelled(trip_id="t-1")',
    ),
    "step_without_parentheses": ("@hotel.step()", "@hotel.step"),
    "timeout_that_is_a_number": ("@hotel.step()", "@hotel.step(timeout=30)"),
    "compensation_that_takes_no_event": (
        "async def release_seat(event: HotelFull)",
        "async def release_seat(event: Saga)",
    ),
    "compensation_that_emits_nothing": (
        "async def release_seat(event: HotelFull) -> SeatReleased:\n    return SeatReleased(trip_id=event.trip_id)",
        "async def release_seat(event: HotelFull) -> None:\n    return None",
    ),
    "compensation_of_an_event": ("of=reserve_seat", "of=SeatReserved"),
    "compensation_of_a_plain_function": ("@train.step()\nasync def reserve_seat", "async def reserve_seat"),
    "saga_that_starts_with_no_event": ("starts_with=TripBooked", "starts_with=str"),
    "field_that_the_event_does_not_have": ("guests=event.guests)", "seats=event.guests)"),
}

#: The users' files that are right, by name, and those that are wrong.
SOUND = {"readme": SAGA, "coordinated": COORDINATED} | {
    f"{page.replace('-', '_')}_{each.line}": each.text
    for page in PAGES
    for each in blocks("python", DOCS / "how-to" / f"{page}.md")
    if each.text.startswith(("import ", "from "))
}
FAULTY = {name: SAGA.replace(right, wrong, 1) for name, (right, wrong) in WRONG.items()}


@pytest.fixture(scope="module", params=[mypy, pyright])
def errors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The errors that a checker finds in each of the files."""
    found: dict[str, list[str]] = request.param(tmp_path_factory.mktemp("user"), SOUND | FAULTY)
    return found


def test_checkers_pass_the_sagas_of_the_pages(errors: dict[str, list[str]]):
    assert len(SOUND) == 2 + len(PAGES)
    assert {name: errors[name] for name in SOUND if errors[name]} == {}


def test_checkers_find_each_wrong_declaration(errors: dict[str, list[str]]):
    assert [name for name, text in FAULTY.items() if text == SAGA] == []
    assert [name for name in FAULTY if not errors[name]] == []
