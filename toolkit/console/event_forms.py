"""A form for an event, made from its JSON schema, and the event's fields from what was submitted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from toolkit.client.event_schemas import resolved

#: A form's own fields, such as the reason, have no such prefix.
PREFIX = "field."
#: The input's type by the format of a text; a browser shows a calendar for both.
_FORMATS = {"date": "date", "date-time": "datetime-local"}
#: What a browser accepts in a number's input: any fraction, or none.
_STEPS = {"integer": "1", "number": "any"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """An input of the form.

    - `kind`: the type of the input; `select` has `options`, and `json` takes what no other input can hold.
    - `values`: of a select, the value of each option.
    - `step`: of a number, what it is a multiple of.
    """

    name: str
    kind: str
    is_required: bool
    default: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""
    description: str = ""

    @property
    def options(self) -> Sequence[str]:
        """The texts of a select, one of which is chosen."""
        return tuple(self.values)

    @property
    def input_name(self) -> str:
        """The name under which the browser submits it."""
        return PREFIX + self.name


def fields_of(schema: Mapping[str, Any], *, without: str) -> list[FormField]:
    """Return the inputs for an event's fields, all but the saga's id."""
    event = resolved(schema, schema)  # that of an event which holds others of its kind is a reference
    required = event.get("required", ())
    properties: Mapping[str, Mapping[str, Any]] = event.get("properties", {})
    return [
        _field(name, resolved(each, schema), is_required=name in required)
        for name, each in properties.items()
        if name != without
    ]


def values_of(fields: Sequence[FormField], submitted: Mapping[str, str]) -> dict[str, Any]:
    """Return the event's fields; what was left empty is left out, unless an empty text is all that is possible.

    Raises:
        ValueError: an input has no value of its type; the text names it.
    """
    values: dict[str, Any] = {}
    for each in fields:
        text = submitted.get(each.input_name, "").strip()
        if text or (each.is_required and each.kind == "text"):
            values[each.name] = _value(each, text)
    return values


def _field(name: str, schema: Mapping[str, Any], *, is_required: bool) -> FormField:
    default, description = schema.get("default"), str(schema.get("description", ""))
    known: dict[str, Any] = {"name": name, "is_required": is_required, "description": description}
    if options := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return FormField(kind="select", values={_text(each): each for each in options}, default=_text(default), **known)
    kind = schema.get("type")
    if kind == "boolean":
        return FormField(kind="select", values={"true": True, "false": False}, default=_text(default), **known)
    if kind in _STEPS:
        return FormField(kind="number", step=_STEPS[kind], default=_text(default), **known)
    if kind == "string":
        form = _FORMATS.get(schema.get("format", ""), "text")
        return FormField(kind=form, default=_text(default) if form == "text" else "", **known)
    return FormField(kind="json", default="" if default is None else json.dumps(default), **known)


def _text(default: object) -> str:
    return default if isinstance(default, str) else "" if default is None else json.dumps(default)


def _value(field: FormField, text: str) -> Any:
    if field.kind == "datetime-local":
        return text if text.endswith("Z") else f"{text}Z"
    if field.kind in ("text", "date"):
        return text
    if field.kind == "select":
        if text not in field.values:
            raise ValueError(f"{field.name}: {text!r} is none of {', '.join(field.options)}")
        return field.values[text]
    try:
        return _number(text) if field.kind == "number" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{field.name}: {text!r} is not {'a number' if field.kind == 'number' else 'JSON'}") from error


def _number(text: str) -> int | float:
    """Return the number that a browser submits; JSON would also read `true` and `[1]`, and has no `.5`."""
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return int(text) if text.lstrip("-").isdecimal() else number
