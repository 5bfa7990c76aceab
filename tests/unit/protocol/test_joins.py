"""The gate of a join: which slot an event fills, and which slots are still empty."""

from __future__ import annotations

import pytest

from toolkit.protocol.joins import Fill, Gate, GatheredEvent

GATE = Gate({"room": ["RoomBooked"], "flight": ["FlightBooked", "TrainBooked"], "car": ["CarBooked"]})


def gathered(*kinds: str) -> tuple[GatheredEvent, ...]:
    return tuple(GatheredEvent(f"the {kind}", kind, 1, "{}") for kind in kinds)


def fill(kind: str, *after: str, event_id: str = "") -> Fill:
    return GATE.fill(gathered(*after), event_id=event_id or f"the {kind}", event_type=kind)


@pytest.mark.parametrize(
    ("kind", "after", "does"),
    [
        ("RoomBooked", (), Fill.ONE),
        ("CarBooked", ("RoomBooked",), Fill.ONE),
        ("CarBooked", ("TrainBooked", "RoomBooked"), Fill.LAST),
        ("RoomBooked", ("RoomBooked",), Fill.DUPLICATE),
        ("RoomBooked", ("RoomBooked", "FlightBooked", "CarBooked"), Fill.DUPLICATE),
        ("TrainBooked", ("FlightBooked",), Fill.SURPLUS),
        ("TrainBooked", ("RoomBooked", "FlightBooked", "CarBooked"), Fill.SURPLUS),
    ],
)
def test_an_event_fills_its_slot_or_nothing(kind: str, after: tuple[str, ...], does: Fill) -> None:
    assert fill(kind, *after) is does


def test_another_event_of_one_type_is_surplus() -> None:
    assert fill("RoomBooked", "RoomBooked", event_id="another") is Fill.SURPLUS


def test_an_event_of_a_former_release_fills_nothing() -> None:
    assert fill("CarBooked", "BikeBooked", "RoomBooked") is Fill.ONE
    assert GATE.filled(gathered("BikeBooked")) == {}


def test_the_first_event_of_a_slot_fills_it() -> None:
    room, train, flight = gathered("RoomBooked", "TrainBooked", "FlightBooked")

    assert GATE.filled([room, train, flight]) == {"room": room, "flight": train}
    assert not GATE.is_full([room, train, flight])
    assert GATE.is_full(gathered("RoomBooked", "TrainBooked", "CarBooked"))


def test_empty_slots_are_named_with_their_events() -> None:
    assert GATE.waits_for(["RoomBooked", "FlightBooked"]) == "CarBooked (car)"
    assert GATE.waits_for(["CarBooked"]) == "RoomBooked (room), FlightBooked or TrainBooked (flight)"
