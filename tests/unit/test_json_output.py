"""JSON that leaves the process parses to its data, and has no characters that control a terminal."""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from toolkit.json_output import as_json

#: By their Unicode classes: controls, bidirectional formatting, separators of lines and paragraphs, surrogates.
BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = {"\u200e", "\u200f", "\u061c"}


def steers(character: str) -> bool:
    kind = unicodedata.category(character)
    return (
        kind in {"Cc", "Zl", "Zp", "Cs"} or unicodedata.bidirectional(character) in BIDIRECTIONAL or character in MARKS
    )


ALL = [chr(code) for code in range(sys.maxunicode + 1)]


@pytest.mark.parametrize("indent", [None, 2])
def test_no_steering_character_leaves_as_it_is(indent: int | None):
    steering = [each for each in ALL if steers(each)]

    text = as_json({each: each for each in steering}, indent=indent)

    assert not any(steers(each) for each in text.replace("\n", ""))
    assert json.loads(text) == {each: each for each in steering}
    assert len(steering) > 2_048 + 65


def test_every_other_character_is_written_as_it_is():
    plain = "".join(each for each in ALL if not steers(each) and each not in '"\\')

    assert as_json(plain) == f'"{plain}"'


@dataclass
class Parcel:
    to: str
    at: datetime


@pytest.mark.parametrize("name", ["Ada", "Ada\u202e", "Ada\ud800"])
def test_escaped_characters_parse_to_the_same_data(name: str):
    parcel: Any = {"parcel": Parcel(name, datetime(2026, 5, 4, tzinfo=UTC)), "weights": [1, 2.5, None, True]}

    read = json.loads(as_json(parcel))

    assert read["parcel"] == {"to": name, "at": "2026-05-04T00:00:00Z"}
    assert read["weights"] == [1, 2.5, None, True]


def test_data_without_a_json_form_is_an_error():
    with pytest.raises(ValueError, match="serialize"):
        as_json({"what": object()})
