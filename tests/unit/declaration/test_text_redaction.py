"""A text about an event shows none of its sensitive values, and is redacted in bounded time."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from tests.unit.declaration.test_redaction import BODY, Guest, RoomBooked
from toolkit import Event, Sensitive
from toolkit.declaration.text_redaction import WITHHELD, redact


class ManifestSigned(Event, owner="airline"):
    flight_id: str
    passengers: Annotated[tuple[str, ...], Sensitive] = ()
    seats: Annotated[dict[str, Any], Sensitive] = Field(default_factory=dict)


def test_a_text_loses_the_events_sensitive_values():
    text = "ada lovelace paid 12345 from +44 20 1; passport {'number': 'GB-1815'}; 2 nights"

    assert redact(RoomBooked, json.dumps(BODY), text) == "*** paid *** from ***; passport {'number': '***'}; 2 nights"


def test_a_short_value_is_redacted_as_a_word():
    body = json.dumps(BODY | {"guest": {"name": "Ada", "nights": 1}})

    assert redact(RoomBooked, body, "Ada was in Adana") == "*** was in Adana"


@pytest.mark.parametrize("name", ["A", "Al"])
def test_one_or_two_characters_are_redacted_as_values(name: str):
    body = json.dumps(BODY | {"guest": {"name": name, "nights": 1}})
    text = "it came by a detour, al dente; Al's or A's"

    assert redact(RoomBooked, body, text) == text
    for shows in ("KeyError: '{}'", 'no "{}"', "name={}", "ValueError: {}", "Guest({}, 1)"):
        assert redact(RoomBooked, body, shows.format(name)) == shows.format("***")


def test_a_short_name_in_another_script_is_redacted():
    body = json.dumps(BODY | {"guest": {"name": "王伟", "nights": 1}})

    assert redact(RoomBooked, body, "no 王伟 here") == "no *** here"


def test_a_value_cut_with_its_text_is_redacted():
    body = json.dumps(BODY)
    text = "x" * 490 + " Ada Lovel"

    assert redact(RoomBooked, body, text).endswith("x ***")


def test_pydantics_input_is_never_repeated():
    with pytest.raises(ValidationError) as raised:
        Guest.model_validate({"name": "Ada", "nights": "Ada's, input_type=no"})

    assert "Ada" not in redact(None, None, str(raised.value))


def test_an_input_cut_with_its_text_is_redacted():
    assert "Ada" not in redact(None, None, "input_value='Ada Lovel")


@pytest.mark.parametrize(
    "body",
    [
        {"passengers": [f"passenger {number}" for number in range(21_000)]},
        {"seats": {f"{row}A": f"seat of {row}" for row in range(8_000)}},
        {"passengers": [f"{number}{'x' * 900}" for number in range(100)]},
    ],
    ids=["many values", "a large map", "long values"],
)
def test_a_text_about_too_many_values_is_withheld(body):
    text = "passenger 7 is not aboard" * 40

    assert redact(ManifestSigned, json.dumps({"flight_id": "f-1"} | body), text) == WITHHELD


def test_a_body_that_nests_too_deeply_is_withheld():
    seats: dict[str, Any] = {"1A": "Ada"}
    for _ in range(500):
        seats = {"row": seats}

    assert redact(ManifestSigned, json.dumps({"flight_id": "f-1", "seats": seats}), "Ada") == WITHHELD


def test_a_value_longer_than_the_text_is_redacted():
    body = json.dumps({"flight_id": "f-1", "passengers": ["Ada Lovelace " * 100_000]})

    text = redact(ManifestSigned, body, f"Lovelace {'x' * 600} Ada Lovelace Ada")

    assert text == f"***{'x' * 600}***"


def test_a_text_of_many_inputs_is_read_once():
    text = "input_value=" * 80_000  # a search from each occurrence to the end takes minutes

    assert redact(None, None, text) == "input_value=***, input_type="


def test_values_that_overlap_are_redacted_as_one():
    body = json.dumps({"flight_id": "f-1", "passengers": ["Ada Lovelace", "Lovelace of London"]})

    assert redact(ManifestSigned, body, "no seat for Ada Lovelace of London") == "no seat for ***"


def test_a_character_that_folds_to_two_is_located():
    body = json.dumps({"flight_id": "f-1", "passengers": ["Weiß"]})

    assert redact(ManifestSigned, body, "Straße: WEIß, weiß") == "Straße: ***, ***"


class BillWritten(Event, owner="clinic"):
    bill_id: str
    amount: Annotated[Decimal, Sensitive]
    born_on: Annotated[date, Sensitive]
    paid_at: Annotated[datetime, Sensitive]
    card: Annotated[str, Sensitive]


BILL = BillWritten(
    bill_id="bill-1",
    amount=Decimal("1287.50"),
    born_on=date(1815, 12, 10),
    paid_at=datetime(2026, 3, 7, 14, 5, 9, tzinfo=UTC),
    card="4111-1111 1111.1111",
)


@pytest.mark.parametrize(
    "shown",
    [
        *(f"{BILL.born_on:{form}}" for form in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d", "%d %B %Y", "%Y/%m/%d")),
        *(f"{BILL.paid_at:{form}}" for form in ("%d.%m.%Y", "%H:%M:%S", "%Y-%m-%dT%H:%M:%S")),
        "7.3.2026",
        str(int(BILL.paid_at.timestamp())),
        *(str(int(BILL.amount * 100)), str(int(BILL.amount)), f"{BILL.amount:,}", f"{BILL.amount:.2f}"),
        "4111111111111111",
    ],
)
def test_a_value_is_redacted_in_its_usual_formats(shown: str):
    text = redact(BillWritten, BILL.model_dump_json(), f"no {shown} here")

    assert text.replace(" ", "") == "no***here"


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e308, 0.1, True])
def test_a_number_of_any_size_is_searched_for(value: Any):
    body = json.dumps({"flight_id": "f-1", "seats": {"row": value}})

    assert redact(ManifestSigned, body, f"no {value} here") == f"no {'***' if value is not True else True} here"
