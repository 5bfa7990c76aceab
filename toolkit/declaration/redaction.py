"""Redact events for display: sensitive fields, and fields that the event does not declare, become `***`.

Redaction uses the event's JSON schema alone, so that clients of a remote service redact as the service itself does. A
body that can't be read against a schema is not shown at all.
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
#: Replaces a body whose event is not declared, or that is not an event at all.
UNKNOWN = "(not shown: unknown event)"
NO_OBJECT = "(not shown: it is not a JSON object)"

#: A schema that declares nothing: it redacts all fields.
_NOTHING: Schema = {"type": "object", "properties": {}}

#: Deeper parts of a body are not shown: Python's own stack ends at about a thousand calls.
_DEEPEST = 100


class HasSchema(Protocol):
    """An object with an event's schema, such as an `EventContract`."""

    @property
    def json_schema(self) -> Schema:
        """The event's JSON schema."""
        ...


#: An event's declaration; None for an unknown event.
Declared = type[Event] | HasSchema | None


@overload
def redacted_body(declared: Declared, body: Mapping[str, Any]) -> dict[str, Any]: ...
@overload
def redacted_body(declared: Declared, body: bytes | str) -> str: ...
def redacted_body(declared: Declared, body: bytes | str | Mapping[str, Any]) -> dict[str, Any] | str:
    """Return an event's body with `***` for its sensitive fields: an object as an object, a text as a text.

    Of a text that is not an event, or is an unknown one, only a remark is returned that it is not shown.
    """
    if isinstance(body, Mapping):
        return _object(_schema(declared), body)
    if declared is None:
        return UNKNOWN
    shown = redacted_object(declared, body)
    return NO_OBJECT if shown is None else as_json(shown)


def redacted_object(declared: Declared, body: bytes | str | None) -> dict[str, Any] | None:
    """Return an event's body as an object with `***` for its sensitive fields; None for an unknown or invalid one."""
    found = _parsed(body)
    return None if declared is None or found is None else _object(_schema(declared), found)


def sensitive_values(declared: type[Event] | HasSchema, body: bytes | str | None) -> Iterator[str]:
    """Yield the values of a body that are redacted, in each form that a text may hold them.

    Raises:
        TooDeepError: the body is nested too deeply.
    """
    schema, found = _schema(declared), _parsed(body)
    if found:
        yield from _hidden(found, (schema,), schema)
    if found and isinstance(declared, type):
        yield from _hidden(_in_python(declared, body or b""), (schema,), schema)


def _in_python(event_type: type[Event], body: bytes | str) -> Any:
    """Return an event's fields as Python objects (dates, decimals, enum members), as its steps have them, or None."""
    try:
        return event_type.model_validate_json(body).model_dump(mode="python", by_alias=True, warnings=False)
    except Exception:  # noqa: BLE001 -- it is not such an event, or a validator of the service's own is at fault
        return None


def sensitive_paths(schema: Schema) -> tuple[str, ...]:
    """Return the sensitive fields that a schema declares: dots lead into objects, `*` into a list's or map's items."""
    return tuple(dict.fromkeys(_paths((schema,), schema, (), ())))


def has_sensitive_fields(declared: type[Event] | HasSchema) -> bool:
    """Whether any field of the event is sensitive; without a schema, every field counts as sensitive."""
    if isinstance(declared, type):
        return bool(_paths_of(declared)) or schema_of(declared) is _NOTHING
    return bool(sensitive_paths(declared.json_schema)) or declared.json_schema == _NOTHING


@cache
def schema_of(event_type: type[Event]) -> Schema:
    """Return an event's JSON schema; where Pydantic can't make one, a schema that declares nothing."""
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
    """Return a value with `***` for what these alternative schemas redact."""
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
    """Yield the redacted values as texts.

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
    """Return the schemas within one that redaction follows: its alternatives, references, items and values."""
    behind = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ()), *_items_of(schema)]
    return behind + ([_referred(str(schema["$ref"]), root)] if "$ref" in schema else [])


def _referred(reference: str, root: Schema) -> Schema:
    found: Schema = root.get("$defs", {}).get(reference.rpartition("/")[2], _NOTHING)
    return found


def _flattened(schemas: Sequence[Schema], root: Schema) -> list[Schema]:
    """Return the schemas behind references and unions, each once; a mark on a reference is kept.

    Each once, because the alternatives of a union that contains itself would double at each depth of a body.
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
    """Whether a value has the schema's type; a value of another type may be a misplaced secret."""
    if not isinstance(value, IN_JSON):  # a Python object: Pydantic has checked its type
        return True
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return kind is None or any(isinstance(value, _KINDS[each]) for each in kinds if each in _KINDS)


def _property(flat: Sequence[Schema], key: str) -> list[Schema]:
    """Return the schemas of one field; an undeclared field has none, and is redacted."""
    found = [each["properties"][key] for each in flat if key in each.get("properties", {})]
    return found or [schema for each in flat for schema in _open(each)]


#: The schema that allows any value; one object, since schemas are compared by identity.
_ANYTHING: Schema = {}


def _open(schema: Schema) -> Iterator[Schema]:
    """Yield the schemas of an object's unnamed fields, such as a map's values."""
    others = schema.get("additionalProperties", "properties" not in schema)
    if isinstance(others, Mapping):
        yield others
    elif others:
        yield _ANYTHING
    yield from schema.get("patternProperties", {}).values()


def _item(flat: Sequence[Schema], index: int) -> list[Schema]:
    found = [each["prefixItems"][index] for each in flat if index < len(each.get("prefixItems", ()))]
    return found or [items for each in flat if isinstance(items := each.get("items", _ANYTHING), Mapping)]
