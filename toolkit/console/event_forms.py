"""A form for an event, made from its JSON schema, and the event's fields from what was submitted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    - `step`: of a number, what it is a multiple of.
    """

    name: str
    kind: str
    is_required: bool
    default: str = ""
    options: Sequence[str] = ()
    step: str = ""
    description: str = ""

    @property
    def input_name(self) -> str:
        """The name under which the browser submits it."""
        return PREFIX + self.name


def fields_of(schema: Mapping[str, Any], *, without: str) -> list[FormField]:
    """Return the inputs for an event's fields, all but the saga's id."""
    required = schema.get("required", ())
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return [
        _field(name, _resolved(each, schema), is_required=name in required)
        for name, each in properties.items()
        if name != without
    ]


def values_of(fields: Sequence[FormField], submitted: Mapping[str, str]) -> dict[str, Any]:
    """Return the event's fields; what was left empty is left out, unless an empty text is all that is possible.

    Raises:
        ValueError: an input has no value of its type; the text names it.
    """
    values: dict[str, Any] = {}
    for field in fields:
        text = submitted.get(field.input_name, "").strip()
        if text or (field.is_required and field.kind == "text"):
            values[field.name] = _value(field, text)
    return values


def _field(name: str, schema: Mapping[str, Any], *, is_required: bool) -> FormField:
    default, description = schema.get("default"), str(schema.get("description", ""))
    known: dict[str, Any] = {"name": name, "is_required": is_required, "description": description}
    if options := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        texts = [each if isinstance(each, str) else json.dumps(each) for each in options]
        return FormField(kind="select", options=texts, default=_text(default), **known)
    kind = schema.get("type")
    if kind == "boolean":
        return FormField(kind="select", options=("true", "false"), default=_text(default), **known)
    if kind in _STEPS:
        return FormField(kind="number", step=_STEPS[kind], default=_text(default), **known)
    if kind == "string":
        form = _FORMATS.get(schema.get("format", ""), "text")
        return FormField(kind=form, default=_text(default) if form == "text" else "", **known)
    return FormField(kind="json", default="" if default is None else json.dumps(default), **known)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a field's schema behind its reference, and the other alternative of one that may be null."""
    if reference := schema.get("$ref"):
        name = str(reference).rpartition("/")[2]
        return {**_resolved(root.get("$defs", {}).get(name, {}), root), **_besides(schema, "$ref")}
    alternatives = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(alternatives) == 1:
        return {**_resolved(alternatives[0], root), **_besides(schema, "anyOf")}
    return schema


def _besides(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}


def _text(default: object) -> str:
    return default if isinstance(default, str) else "" if default is None else json.dumps(default)


def _value(field: FormField, text: str) -> Any:
    if field.kind == "datetime-local":
        return text if text.endswith("Z") else f"{text}Z"
    if field.kind in ("text", "date"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        if field.kind == "select":
            return text
        raise ValueError(f"{field.name}: {text!r} is not {'a number' if field.kind == 'number' else 'JSON'}") from error
