"""What is shown of an event: its sensitive fields, and whatever it does not declare, as `***`.

It goes by the event's JSON schema alone, so that whoever reads a remote service masks as the service itself does. What
can't be read against a schema is not shown at all: silence leaks nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, overload

from pydantic.errors import PydanticInvalidForJsonSchema

from toolkit.declaration.events import SENSITIVE, Event
from toolkit.declaration.value_forms import IN_JSON, LISTS, TooDeepError, texts_of
from toolkit.json_output import as_json

Schema = Mapping[str, Any]

REDACTED = "***"
#: What stands for a body whose event nobody declares, or which is no event at all.
UNKNOWN = "(not shown: unknown event)"
NO_OBJECT = "(not shown: it is no JSON object)"

#: A schema that declares nothing, by which all fields are masked.
_NOTHING: Schema = {"type": "object", "properties": {}}

#: What lies deeper in a body is not shown: Python's own stack ends at about a thousand calls.
_DEEPEST = 100


class HasSchema(Protocol):
    """Whatever tells an event's schema; an `EventContract`, say."""

    @property
    def json_schema(self) -> Schema:
        """The event's JSON schema."""
        ...


#: What an event declares; None where nobody knows it.
Declared = type[Event] | HasSchema | None


@overload
def redacted_body(declared: Declared, body: Mapping[str, Any]) -> dict[str, Any]: ...
@overload
def redacted_body(declared: Declared, body: bytes | str) -> str: ...
def redacted_body(declared: Declared, body: bytes | str | Mapping[str, Any]) -> dict[str, Any] | str:
    """Return an event's body with `***` for what is sensitive: an object as an object, a text as a text.

    A text that is no event, or an unknown one, comes back as a remark that it is not shown.
    """
    if isinstance(body, Mapping):
        return _object(_schema(declared), body)
    if declared is None:
        return UNKNOWN
    shown = redacted_object(declared, body)
    return NO_OBJECT if shown is None else as_json(shown)


def redacted_object(declared: Declared, body: bytes | str | None) -> dict[str, Any] | None:
    """Return an event's body as an object with `***` for what is sensitive; None where it can't be told."""
    found = _parsed(body)
    return None if declared is None or found is None else _object(_schema(declared), found)


def sensitive_values(declared: type[Event] | HasSchema, body: bytes | str | None) -> Iterator[str]:
    """Yield, in each form that a text may have them, the values of a body that are masked where it is shown.

    Raises:
        TooDeepError: the body is nested too deeply.
    """
    schema, found = _schema(declared), _parsed(body)
    if found:
        yield from _hidden(found, (schema,), schema)
    if found and isinstance(declared, type):
        yield from _hidden(_in_python(declared, body or b""), (schema,), schema)


def _in_python(event_type: type[Event], body: bytes | str) -> Any:
    """Return an event's fields as its steps have them: dates, decimals, members of enumerations; else None."""
    try:
        return event_type.model_validate_json(body).model_dump(mode="python", by_alias=True, warnings=False)
    except Exception:  # noqa: BLE001 -- it is no such event, or a validator of the service's own is at fault
        return None


def sensitive_paths(schema: Schema) -> tuple[str, ...]:
    """Return the sensitive fields that a schema declares: dots lead into objects, `*` into a list's or map's items."""
    return tuple(dict.fromkeys(_paths((schema,), schema, (), ())))


def has_sensitive_fields(declared: type[Event] | HasSchema) -> bool:
    """Whether any field of the event is sensitive; where no schema tells, any may be."""
    if isinstance(declared, type):
        return bool(_paths_of(declared)) or schema_of(declared) is _NOTHING
    return bool(sensitive_paths(declared.json_schema)) or declared.json_schema == _NOTHING


@cache
def schema_of(event_type: type[Event]) -> Schema:
    """Return an event's JSON schema; where Pydantic can't tell it, one that declares nothing."""
    try:
        return event_type.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return _NOTHING


@cache
def _paths_of(event_type: type[Event]) -> tuple[str, ...]:
    return sensitive_paths(schema_of(event_type))


def _schema(declared: Declared) -> Schema:
    if declared is None:
        return _NOTHING
    return schema_of(declared) if isinstance(declared, type) else declared.json_schema


def _parsed(body: bytes | str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _object(schema: Schema, body: Mapping[str, Any]) -> dict[str, Any]:
    redacted = _redacted(body, (schema,), schema)
    return redacted if isinstance(redacted, dict) else dict.fromkeys(body, REDACTED)


def _redacted(value: Any, schemas: Sequence[Schema], root: Schema, depth: int = 0) -> Any:
    """Return a value as these schemas, any of which may be meant, allow it to be shown."""
    if value is None:
        return None
    if depth > _DEEPEST:
        return REDACTED
    flat = _flattened(schemas, root)
    if any(each.get(SENSITIVE) for each in flat) or not any(_allows(each, value) for each in flat):
        return REDACTED
    if isinstance(value, Mapping):
        return {key: _redacted(each, _property(flat, key), root, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_redacted(each, _item(flat, index), root, depth + 1) for index, each in enumerate(value)]
    return value


def _hidden(value: Any, schemas: Sequence[Schema], root: Schema, depth: int = 0) -> Iterator[str]:
    """Yield, as texts, the values that would be masked.

    Raises:
        TooDeepError: the value is nested too deeply.
    """
    if depth > _DEEPEST:
        raise TooDeepError
    flat = _flattened(schemas, root)
    if any(each.get(SENSITIVE) for each in flat) or not any(_allows(each, value) for each in flat):
        yield from texts_of(value, depth)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _hidden(each, _property(flat, str(key)), root, depth + 1)
    elif isinstance(value, LISTS):
        for index, each in enumerate(value):
            yield from _hidden(each, _item(flat, index), root, depth + 1)


def _paths(schemas: Sequence[Schema], root: Schema, path: tuple[str, ...], seen: tuple[int, ...]) -> Iterator[str]:
    flat = _flattened(schemas, root)
    if any(each.get(SENSITIVE) for each in flat):
        yield ".".join(path) or "*"
        return
    for each in flat:
        if id(each) in seen:  # a model within itself: the same fields again
            continue
        inside = (*seen, id(each))
        for name, schema in each.get("properties", {}).items():
            yield from _paths((schema,), root, (*path, name), inside)
        for schema in _items_of(each):
            yield from _paths((schema,), root, (*path, "*"), inside)


def _items_of(schema: Schema) -> Iterator[Schema]:
    """Yield the schemas of a list's items or a map's values."""
    within = (schema.get("items"), schema.get("additionalProperties"), *schema.get("prefixItems", ()))
    patterns = schema.get("patternProperties", {}).values()
    yield from (each for each in (*within, *patterns) if isinstance(each, Mapping))


def steps_into(schema: Schema, root: Schema) -> list[Schema]:
    """Return the schemas behind one, where masking looks: its alternatives, what it refers to, its items and values."""
    behind = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ()), *_items_of(schema)]
    return behind + ([_referred(str(schema["$ref"]), root)] if "$ref" in schema else [])


def _referred(reference: str, root: Schema) -> Schema:
    found: Schema = root.get("$defs", {}).get(reference.rpartition("/")[2], _NOTHING)
    return found


def _flattened(schemas: Sequence[Schema], root: Schema) -> list[Schema]:
    """Return the schemas behind references and unions, each once; a mark on a reference stands beside it.

    Once: the alternatives of a union that contains itself would double at each depth of a body.
    """
    flat: dict[int, Schema] = {}
    seen: set[int] = set()
    waiting = list(reversed(schemas))
    while waiting:
        schema = waiting.pop()
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        followed = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
        if reference := schema.get("$ref"):
            followed.append(_referred(str(reference), root))
        if not followed or schema.get(SENSITIVE):
            flat[id(schema)] = schema
        waiting.extend(reversed(followed))
    return list(flat.values())


_KINDS: dict[str, Any] = {
    "object": Mapping, "array": LISTS, "string": str, "integer": int, "number": int | float, "boolean": bool,
}  # fmt: skip


def _allows(schema: Schema, value: Any) -> bool:
    """Whether a value is of the schema's kind; what is not may be anything, a misplaced secret too."""
    if not isinstance(value, IN_JSON):  # what Python makes of it: its type was seen to
        return True
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return kind is None or any(isinstance(value, _KINDS[each]) for each in kinds if each in _KINDS)


def _property(flat: Sequence[Schema], key: str) -> list[Schema]:
    """Return the schemas of one field; none, by which it is masked, where nothing declares it."""
    found = [each["properties"][key] for each in flat if key in each.get("properties", {})]
    return found or [schema for each in flat for schema in _open(each)]


#: The schema of what may be anything; one object, so that it is known again.
_ANYTHING: Schema = {}


def _open(schema: Schema) -> Iterator[Schema]:
    """Yield what holds for the fields of an object that have no names, a map's say."""
    others = schema.get("additionalProperties", "properties" not in schema)
    if isinstance(others, Mapping):
        yield others
    elif others:
        yield _ANYTHING
    yield from schema.get("patternProperties", {}).values()


def _item(flat: Sequence[Schema], index: int) -> list[Schema]:
    found = [each["prefixItems"][index] for each in flat if index < len(each.get("prefixItems", ()))]
    return found or [items for each in flat if isinstance(items := each.get("items", _ANYTHING), Mapping)]
