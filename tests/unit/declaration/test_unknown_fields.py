"""A field that an event's model lacks is found by its path, at any depth, by its name and by its alias."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from toolkit.declaration.unknown_fields import unknown_fields


class Part(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    sku: str = Field("", alias="articleNumber")
    inner: Part | None = None


class Whole(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    part: Part = Field(Part(), alias="firstPart")
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] = {}


@pytest.mark.parametrize(
    ("given", "unknown"),
    [
        ({"part": {"sku": "A"}, "by_name": {"any": {"articleNumber": "B"}}}, []),
        ({"firstPart": {"inner": {"articleNumber": "A"}}}, []),
        ({"prt": {}}, ["prt"]),
        ({"part": {"skew": "A"}}, ["part.skew"]),
        ({"firstPart": {"inner": {"skew": "A"}}}, ["firstPart.inner.skew"]),
        ({"parts": [{"sku": "A"}, {"skew": "B"}]}, ["parts.1.skew"]),
        ({"by_name": {"any": {"skew": "B"}}}, ["by_name.any.skew"]),
    ],
)
def test_a_field_that_the_model_lacks_is_named(given: dict[str, Any], unknown: list[str]) -> None:
    assert unknown_fields(given, Whole.model_validate(given)) == unknown
