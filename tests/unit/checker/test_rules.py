"""Each rule for choreographies finds its own fault in a saga of two steps, and nothing in the shipped one.

The rules read declarations alone: a step that were run would fail its test.
"""

from __future__ import annotations

import pytest

from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.choreography_model import step
from tests.example_sagas.drawn import services_of
from tests.unit.checker.shapes import TRIP as TRIP_OF_BRANCHES
from toolkit import Event, Participant, Refusal, Saga, SagaId, Service
from toolkit.checker.check import check
from toolkit.checker.rules import broken_rules
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract


class TripBooked(Event, owner="desk"):
    trip_id: SagaId


class SeatTaken(Event, owner="airline"):
    trip_id: SagaId


class SeatRefused(Refusal, owner="airline"):
    trip_id: SagaId


class SeatGivenBack(Event, owner="airline"):
    trip_id: SagaId


class RoomRefused(Refusal, owner="hotel"):
    trip_id: SagaId


class StaleNews(Event, owner="hotel"):
    trip_id: SagaId


class TripReady(Event, owner="hotel", optional=True):
    trip_id: SagaId


class TripCancelled(Event, owner="hotel", optional=True):
    trip_id: SagaId


TRIP = Saga(name="trip", id_field="trip_id", starts_with=TripBooked, completes_with=TripReady, fails_with=TripCancelled)


@pytest.fixture
def airline() -> Participant:
    return Participant("airline", saga=TRIP)


@pytest.fixture
def hotel() -> Participant:
    return Participant("hotel", saga=TRIP)


async def take_seat(event: TripBooked) -> SeatTaken | SeatRefused:
    raise NotImplementedError


async def give_seat_back(event: RoomRefused) -> SeatGivenBack:
    raise NotImplementedError


async def take_room(event: SeatTaken) -> TripReady | RoomRefused:
    raise NotImplementedError


async def cancel_trip(event: SeatRefused | SeatGivenBack) -> TripCancelled:
    raise NotImplementedError


def test_the_services_that_ship_have_no_findings():
    choreography = Choreography([inventory, payment, shipping, notification])

    assert broken_rules(choreography) == []


def test_a_sound_saga_of_two_steps_passes(airline, hotel):
    airline.step()(take_seat)
    airline.compensation(of=take_seat)(give_seat_back)
    hotel.step()(take_room)
    hotel.step()(cancel_trip)

    assert _findings(airline, hotel) == []


def test_an_unconsumed_event_is_found_unless_optional(airline, hotel):
    airline.step()(take_seat)
    airline.compensation(of=take_seat)(give_seat_back)
    hotel.step()(take_room)

    assert "unconsumed event: give_seat_back (airline) emits SeatGivenBack, and no service consumes it" in _lines(
        airline, hotel
    )
    assert not any("TripReady" in line for line in _lines(airline, hotel))


def test_an_unemitted_event_is_found_unless_it_starts(airline, hotel):
    async def read_news(event: StaleNews) -> TripReady:
        raise NotImplementedError

    airline.step()(take_seat)
    hotel.step()(read_news)

    assert "unemitted event: read_news (hotel) runs on StaleNews, and no service emits it" in _lines(airline, hotel)
    assert not any("runs on TripBooked" in line for line in _lines(airline, hotel))


def test_a_step_that_nothing_leads_to_is_found(airline, hotel):
    async def read_news(event: StaleNews) -> TripReady:
        raise NotImplementedError

    airline.step()(take_seat)
    hotel.step()(read_news)

    assert "unreachable: nothing leads from TripBooked to read_news (hotel)" in _lines(airline, hotel)


def test_a_join_with_an_empty_slot_is_unreachable(airline, hotel):
    async def take_room_with_news(event: SeatTaken, news: StaleNews) -> TripReady | RoomRefused:
        raise NotImplementedError

    airline.step()(take_seat)
    hotel.step()(take_room_with_news)

    assert (
        "unreachable: nothing leads from TripBooked to take_room_with_news (hotel), which waits for StaleNews"
    ) in _lines(airline, hotel)


def test_a_saga_that_never_completes_is_found(airline, hotel):
    airline.step()(take_seat)
    airline.compensation(of=take_seat)(give_seat_back)
    hotel.step()(cancel_trip)

    assert "unreached end: nothing leads from TripBooked to TripReady, which completes trip" in _lines(airline, hotel)


def test_a_branch_that_ignores_its_siblings_refusal_is_found():
    steps = TRIP_OF_BRANCHES | {"car": step("Start", "CarBooked", "CarFull", "FlightFull|NotPaid", "CarCancelled")}

    (found,) = broken_rules(Choreography(services_of(steps)))

    assert (found.rule, found.message) == ("uncompensated step", "car (car) is still done after HotelFull")
    assert (found.function, found.service) == ("undo_car", "car")
    assert found.cure == "Let undo_car run on HotelFull, or on an event that follows from it"


def test_an_event_of_another_owner_is_found(airline):
    async def take_seat_and_room(event: TripBooked) -> TripReady:
        raise NotImplementedError

    airline.step()(take_seat_and_room)

    assert "foreign event: take_seat_and_room (airline) emits TripReady, which belongs to hotel" in _lines(airline)


def test_a_step_without_a_compensation_is_found(airline, hotel):
    async def cancel_all(event: SeatRefused | RoomRefused) -> TripCancelled:
        raise NotImplementedError

    airline.step()(take_seat)
    hotel.step()(take_room)
    hotel.step()(cancel_all)

    assert _lines(airline, hotel) == ["uncompensated step: take_seat (airline) is still done after RoomRefused"]


def test_an_end_that_a_refusal_emits_is_found():
    refused = Saga(
        name="trip", id_field="trip_id", starts_with=TripBooked, completes_with=TripReady, fails_with=RoomRefused
    )
    hotel = Participant("hotel", saga=refused)

    async def take_room_at_once(event: TripBooked) -> TripReady | RoomRefused:
        raise NotImplementedError

    hotel.step()(take_room_at_once)

    assert (
        "silent end: take_room_at_once (hotel) emits RoomRefused, which ends trip only as the success of a step"
    ) in _lines(hotel)


def test_one_event_for_both_ends_is_found():
    both = Saga(name="trip", id_field="trip_id", starts_with=TripBooked, completes_with=TripReady, fails_with=TripReady)

    async def take_or_refuse(event: TripBooked) -> TripReady | RoomRefused:
        raise NotImplementedError

    participant = Participant("hotel", saga=both)
    participant.step()(take_or_refuse)

    assert [each.rule for each in _findings(participant)].count("same end") == 1


def test_a_consumer_that_requires_unknown_fields_is_found(airline):
    other = type("SeatTaken", (Event,), {"__annotations__": {"trip_id": SagaId, "row": int}}, owner="airline")
    newer = type("SeatTaken", (Event,), {"__annotations__": {"trip_id": SagaId}}, owner="airline", version=2)
    airline.step()(take_seat)
    airline.compensation(of=take_seat)(give_seat_back)

    assert _unreadable(airline, other) == [
        "SeatTaken, as hotel declares it, requires row, which it does not have in airline"
    ]
    assert _unreadable(airline, newer) == ["SeatTaken, as hotel declares it, consumes version 2, and airline emits 1"]
    assert _unreadable(airline, SeatTaken) == []


def _unreadable(airline, event):
    async def take_room_for(event) -> TripReady | RoomRefused:
        raise NotImplementedError

    take_room_for.__annotations__["event"] = event
    hotel = Participant("hotel", saga=TRIP)
    hotel.step()(take_room_for)
    return [each.message for each in _findings(airline, hotel) if each.rule == "unreadable event"]


def test_a_coordinated_saga_is_checked_where_no_order_counts(airline, hotel):
    async def take_seat_and_room(event: TripBooked) -> TripReady:
        raise NotImplementedError

    airline.step()(take_seat_and_room)
    hotel.step()(cancel_trip)
    services = [Service(name=each.name, participants=[each]) for each in (airline, hotel)]

    (report,) = check([Contract.of(each, asked_by={"trip": "desk"}) for each in services])

    assert [each.rule for each in report.findings] == ["foreign event"]
    assert (report.coordinator, report.is_proved) == ("desk", False)


def test_every_finding_has_a_cure(airline, hotel):
    airline.step()(take_seat)
    hotel.step()(take_room)

    findings = _findings(airline, hotel)

    assert findings
    assert all(finding.cure and str(finding).endswith(f"{finding.cure}.") for finding in findings)


def _findings(*participants):
    return broken_rules(Choreography([Service(name=each.name, participants=[each]) for each in participants]))


def _lines(*participants):
    return [f"{finding.rule}: {finding.message}" for finding in _findings(*participants)]
