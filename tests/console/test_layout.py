"""The layout of choreographies with long names, many arrows, circles and unknown services."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from services.demo import SERVICES
from tests.example_sagas import approval
from tests.example_sagas.travel import Script
from toolkit.console.diagrams.graph import UNKNOWN_SERVICES, drawn
from toolkit.console.diagrams.layout import arrange
from toolkit.console.diagrams.shapes import (
    CHARACTER,
    LINE,
    SMALL_CHARACTER,
    Arrow,
    Layout,
    Line,
    Part,
    measure,
    wrap,
)
from toolkit.declaration.choreography import Choreography

Area = tuple[float, float, float, float]
LONG = "reconcile_the_supplier_ledger_with_the_warehouse_inventory_once_more"


def order() -> Layout:
    choreography = Choreography(SERVICES)
    return drawn(choreography, choreography.sagas[0], counts={"InventoryReserved": 123_456, "OrderCreated": 7})


def chain(*names: str) -> Layout:
    parts = [
        Part(key=name, name=name, service="a-service-with-a-long-name", status="✓ done 12:00:00") for name in names
    ]
    parts += [Part(key=f"undo {name}", name=f"undo_{name}", undoes=name) for name in names]
    arrows = [Arrow(source=one, target=other, labels=(f"{one}HasHappenedAtLast",)) for one, other in pairwise(names)]
    arrows += [
        Arrow(source=other, target=f"undo {one}", labels=(f"{other}Refused",), is_compensation=True)
        for one, other in pairwise(names)
    ]
    return arrange(parts, arrows)


def fan() -> Layout:
    parts = [Part(key=name, name=name) for name in ("start", "pack", "bill", "insure", "ship")]
    parts += [Part(key=f"undo_{name}", name=f"undo_{name}", undoes=name) for name in ("pack", "bill", "insure")]
    arrows = [Arrow(source="start", target=name, labels=("Started",)) for name in ("pack", "bill", "insure", "ship")]
    arrows += [
        Arrow(source=name, target="ship", labels=(f"{name.title()}Done",)) for name in ("pack", "bill", "insure")
    ]
    arrows += [
        Arrow(source="ship", target=f"undo_{name}", labels=("ShippingFailed",), is_compensation=True)
        for name in ("pack", "bill", "insure")
    ]
    arrows += [Arrow(source="undo_bill", target="bill", labels=("Again",), is_compensation=True)]
    return arrange(parts, arrows)


def circle() -> Layout:
    parts = [Part(key=name, name=name) for name in "abc"]
    arrows = [Arrow(source=one, target=other, labels=("Went",)) for one, other in ("ab", "bc", "ca", "ba", "aa")]
    return arrange(parts, arrows)


def order_without(*away: str) -> Layout:
    choreography = Choreography(service for service in SERVICES if service.name not in away)
    return drawn(choreography, choreography.sagas[0], unknown_services=away)


def purchase_without(*away: str) -> Layout:
    choreography = Choreography(each for each in approval.services(Script()) if each.name not in away)
    return drawn(choreography, choreography.sagas[0], unknown_services=away)


PICTURES = [order(), order_without("shipping"), order_without("payment", "notification"), order_without("inventory")]
PICTURES += [purchase_without(), purchase_without("quotes")]
PICTURES += [chain("a", LONG, "Überweisung", "支払いを処理する"), fan(), circle(), arrange([], [])]


@pytest.mark.parametrize("layout", PICTURES)
def test_no_two_boxes_of_a_drawing_overlap(layout: Layout):
    boxes = [(box.x, box.y, box.right, box.bottom) for box in layout.boxes]

    assert [pair for pair in combinations(boxes, 2) if overlap(*pair)] == []


@pytest.mark.parametrize("layout", PICTURES)
def test_no_label_overlaps_labels_or_boxes(layout: Layout):
    labels = [label_area(line) for line in layout.lines if line.lines]
    boxes = [(box.x, box.y, box.right, box.bottom) for box in layout.boxes]

    assert [pair for pair in combinations(labels, 2) if overlap(*pair)] == []
    assert [(label, box) for label in labels for box in boxes if overlap(label, box)] == []


@pytest.mark.parametrize("layout", PICTURES)
def test_everything_lies_within_the_picture(layout: Layout):
    areas = [(box.x, box.y, box.right, box.bottom) for box in layout.boxes]
    areas += [label_area(line) for line in layout.lines if line.lines]

    for left, top, right, bottom in areas:
        assert layout.left <= left < right <= layout.left + layout.width
        assert 0 <= top < bottom <= layout.height


@pytest.mark.parametrize("layout", PICTURES)
def test_a_name_fits_into_its_box(layout: Layout):
    for box in layout.boxes:
        assert max(measure(line) * CHARACTER for line in box.lines) < box.width
        assert measure(box.part.status) * SMALL_CHARACTER < box.width
        assert len(box.lines) * LINE < box.height


@pytest.mark.parametrize("away", [(), ("quotes",), ("buyer",)])
def test_answers_come_from_outside_the_services(away: tuple[str, ...]):
    arrows = {(line.arrow.source, line.arrow.target) for line in purchase_without(*away).lines}

    assert {source for source, target in arrows if target == "desk.decide"} == {
        "event:Approved", "event:Declined", UNKNOWN_SERVICES if "quotes" in away else "quotes.quote",
    }  # fmt: skip


def test_compensations_stand_below_a_rightward_forward_path():
    boxes = {box.part.name: box for box in order().boxes}

    forward = ("OrderCreated", "reserve_inventory", "process_payment", "create_shipment", "send_confirmation")
    assert sorted(forward, key=lambda name: boxes[name].x) == list(forward)
    for step, undo in (("reserve_inventory", "release_inventory"), ("create_shipment", "cancel_shipment")):
        assert boxes[step].column == boxes[undo].column
        assert boxes[step].bottom < boxes[undo].y


def test_an_unknown_service_stands_between_its_events():
    boxes = {box.part.name: box for box in order_without("shipping").boxes}

    row = ("process_payment", "shipping", "send_confirmation", "OrderFulfilled")
    assert sorted(row, key=lambda name: boxes[name].x) == list(row)
    assert len({boxes[name].row for name in row}) == 1


def test_an_arrow_shows_its_events_count():
    lines = [line.lines for line in order().lines]

    assert ["InventoryReserved"[:9], "Reserved", "123,456×"] in lines  # noqa: RUF001  # a sign of multiplication


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("reserve", ["reserve"]),
        ("send_cancellation_notice", ["send_", "cancellation_", "notice"]),
        ("InventoryReservationFailed", ["Inventory", "Reservation", "Failed"]),
        ("HTTPServerGone", ["HTTPServerGone"]),
        ("x" * 30, ["x" * 14, "x" * 14, "xx"]),
        ("", []),
    ],
)
def test_a_name_is_wrapped_before_a_word(name: str, lines: list[str]):
    assert wrap(name, 14) == lines


def label_area(line: Line) -> Area:
    half = line.label_width / 2
    return line.label_x - half, line.label_y - line.label_height + 4, line.label_x + half, line.label_y


def overlap(one: Area, other: Area) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
