"""The event that starts a saga, made from an example, from JSON, and from `--set key=value`; and an answer's fields.

What leaves here is valid: it is checked by the event's own model, and a field that the model lacks is an error,
since a misspelt one would otherwise be dropped unseen.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from toolkit.cli.exit_codes import UsageError
from toolkit.client.event_schemas import resolved
from toolkit.declaration.events import Event, Saga, documented_example
from toolkit.declaration.text_redaction import redact
from toolkit.declaration.unknown_fields import unknown_fields
from toolkit.ids import new_id

#: A place in a list; no list is longer.
_INDEX = re.compile(r"[0-9]{1,6}")

_TOO_DEEP = "this is nested too deeply for an event"

NO_TEXTS: Mapping[str, str] = MappingProxyType({})

E = TypeVar("E", bound=Event)


def build_events(saga: Saga, data: str | None, changes: Sequence[str], count: int) -> dict[str, Event]:
    """Return so many starting events by saga id; without data they follow the documented example.

    Raises:
        UsageError: the data is malformed or not allowed, or several sagas are to have one id.
    """
    try:
        return _built(saga, data, changes, count)
    except RecursionError as error:
        raise UsageError(_TOO_DEEP) from error


def _built(saga: Saga, data: str | None, changes: Sequence[str], count: int) -> dict[str, Event]:
    fields = read_data(data) if data is not None else example_of(saga)
    texts = dict(apply(change, fields) for change in changes)
    given = fields.get(saga.id_field)
    if not isinstance(given, str | None):
        given = texts.get(saga.id_field, given)
    if given is not None and count > 1:
        raise UsageError(f"{count} sagas can't share the {saga.id_field} {given!r}: leave it out, or leave out --count")
    ids = [str(given)] if given is not None else [new_id() for _ in range(count)]
    return {saga_id: validated(saga.starts_with, fields | {saga.id_field: saga_id}, texts) for saga_id in ids}


def fields_of(data: str | None, changes: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields that are given, and the texts of those that were set, by their paths.

    Raises:
        UsageError: the data is malformed.
    """
    try:
        fields = read_data(data) if data is not None else {}
        return fields, dict(apply(change, fields) for change in changes)
    except RecursionError as error:
        raise UsageError(_TOO_DEEP) from error


def as_declared(fields: dict[str, Any], texts: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the text of `--set` in each place where the event's schema wants a text.

    So `--set note=5` sets a note to "5", as `validated` does where the event's model is at hand.
    """
    wanted = {path: text for path, text in texts.items() if _wants_text(schema, path)}
    fields = copy.deepcopy(fields)
    for path, text in wanted.items():
        apply(f"{path}={json.dumps(text)}", fields)
    return fields


def _wants_text(schema: Mapping[str, Any], path: str) -> bool:
    place = resolved(schema, schema)
    for part in path.split("."):
        inner = place.get("items") if place.get("type") == "array" else place.get("properties", {}).get(part)
        inner = inner or place.get("additionalProperties")
        place = resolved(inner, schema) if isinstance(inner, dict) else {}
    return place.get("type") == "string"


def example_of(saga: Saga) -> dict[str, Any]:
    """Return the fields of the starting event's documented example, all but the saga's id."""
    example = copy.deepcopy(documented_example(saga.starts_with))
    example.pop(saga.id_field, None)
    return example


def read_data(data: str) -> dict[str, Any]:
    """Return the JSON object given as text, as `@file`, or as `-` for standard input."""
    try:
        text = sys.stdin.read() if data == "-" else Path(data[1:]).read_text() if data.startswith("@") else data
        fields = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--data {data}: the file can't be read: {error}") from error
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}; give an object, @file, or - for standard input") from error
    if not isinstance(fields, dict):
        raise UsageError(f"--data is a JSON {type(fields).__name__}, but an event is an object: {{…}}")
    return fields


def apply(change: str, fields: dict[str, Any]) -> tuple[str, str]:
    """Put the value of `path=value` in its place, and return both; the path has dots, and numbers within a list."""
    path, equals, text = change.partition("=")
    if not (path and equals):
        raise UsageError(f"--set {_of(change)!r} sets nothing: write key=value, for example items.0.sku=TEA-POT")
    *parents, last = path.split(".")
    place: Any = fields
    for part in parents:
        place = _place(place, part, change)
    if isinstance(place, list):
        _place(place, last, change)
        place[int(last)] = _value(text)
    elif isinstance(place, dict):
        place[last] = _value(text)
    else:
        raise UsageError(f"--set {_of(change)!r}: what stands before {last!r} is neither an object nor a list")
    return path, text


def validated(event_type: type[E], fields: dict[str, Any], texts: Mapping[str, str] = NO_TEXTS) -> E:
    """Return the event with these fields, as its model sees them; where it wants a text it gets that of `texts`.

    Raises:
        UsageError: a value is not allowed, or a field is unknown.
    """
    try:
        event = event_type.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        wanted = {_path(each) for each in faults if each["type"] == "string_type"}
        if spelt := wanted.intersection(texts):
            fields = copy.deepcopy(fields)
            for path in spelt:
                apply(f"{path}={json.dumps(texts[path])}", fields)
            return validated(event_type, fields)
        faults_text = redact(event_type, json.dumps(fields), "; ".join(_fault(each) for each in faults))
        raise UsageError(f"this is no {event_type.__name__}: {faults_text}") from error
    if unknown := unknown_fields(fields, event):
        raise UsageError(f"{event_type.__name__} has no field {', '.join(unknown)}")
    return event


def _place(place: Any, part: str, change: str) -> Any:
    """Go one part of a path down; what is missing in an object, or next in a list, is made."""
    if isinstance(place, dict):
        return place.setdefault(part, {})
    if isinstance(place, list) and _INDEX.fullmatch(part) and int(part) <= len(place):
        if int(part) == len(place):
            place.append({})
        return place[int(part)]
    size = f"a list of {len(place)}" if isinstance(place, list) else "neither an object nor a list"
    raise UsageError(f"--set {_of(change)!r}: there is no {part!r} in what is {size}")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _of(change: str) -> str:
    """Return which field was to be set, without the value: it may be sensitive."""
    return change.partition("=")[0]


def _path(fault: Any) -> str:
    return ".".join(map(str, fault["loc"]))


def _fault(fault: Any) -> str:
    hint = f" (to keep it a text, quote it: '\"{fault['input']}\"')" if fault["type"] == "string_type" else ""
    return f"{_path(fault)}: {fault['msg']}{hint}"
