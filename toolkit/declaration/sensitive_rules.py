"""Refuse, at the declaration, sensitive marks that would not reach an event's JSON schema.

The mark goes from the annotation into the schema, by which services and clients redact. Some annotations have no place
for it there (a map's keys, JSON within a text), and some remove it again (a schema of the field's own, a subclass).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo

from toolkit.declaration.events import SENSITIVE, Event, Sensitive
from toolkit.declaration.redaction import Schema, steps_into

_MARK = "`Annotated[…, Sensitive]`"
#: How deep an annotation is searched; a deeper one contains itself, and repeats what was found already.
_DEEPEST = 50


def sensitive_faults(event_type: type[Event]) -> Iterator[tuple[str, str]]:
    """Yield each place where an event, or a class within it, loses a mark, with the cure."""
    for kind in _kinds(event_type, []):
        yield from _schema_faults(kind)
        if issubclass(kind, BaseModel):
            yield from _model_faults(kind)


def _schema_faults(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of one class whose marks are missing in its schema."""
    marked = {name: marks for name, hint in _hints(kind).items() if (marks := _marks(hint))}
    if not marked:
        return
    try:
        root = TypeAdapter(kind).json_schema()
    except PydanticUserError:
        yield (
            f"{kind.__name__} has no JSON schema, which has to mark its sensitive fields",
            "Use types that JSON can hold",
        )
        return
    places = _places(kind, root)
    for name, marks in marked.items():
        if (found := places.get(name)) is None or _marks_in_schema(found, root) < marks:
            yield (
                f"{kind.__name__}.{name} is sensitive in a place that its JSON schema does not mark",
                f"Mark the whole field, {_MARK}, with the mark last among its annotations",
            )


def _model_faults(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        if info.default is Sensitive or isinstance(info.default, Sensitive):
            yield f"{model.__name__}.{name} has the mark as its default", f"Write it into the type: {_MARK}"
        bases = [base for base in model.__mro__[1:] if issubclass(base, BaseModel) and name in base.model_fields]
        if any(_marks(_hint_of(base.model_fields[name])) for base in bases) and not _marks(_hint_of(info)):
            yield (
                f"{model.__name__}.{name} is sensitive in the class that it inherits from",
                f"Repeat the mark: {_MARK}",
            )
    for name, computed in model.model_computed_fields.items():
        if _marks(computed.return_type):
            yield (
                f"{model.__name__}.{name} is computed, and no JSON schema holds its mark",
                "Make it a property, or a field of its own",
            )


def _hints(kind: type[Any]) -> dict[str, Any]:
    """Return the annotated types of a class's fields, by name."""
    if issubclass(kind, BaseModel):
        return {name: _hint_of(info) for name, info in kind.model_fields.items()}
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError:
        return {}


def _hint_of(info: FieldInfo) -> Any:
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _places(kind: type[Any], root: Schema) -> dict[str, Schema]:
    """Return the schemas of a class's fields, by their names in Python."""
    whole = root.get("$defs", {}).get(str(root["$ref"]).rpartition("/")[2], {}) if "$ref" in root else root
    properties: dict[str, Schema] = whole.get("properties", {})
    if issubclass(kind, BaseModel):
        names = {name: str(info.validation_alias or name) for name, info in kind.model_fields.items()}
        return {name: properties[alias] for name, alias in names.items() if alias in properties} | {
            name: properties[name] for name in names if name in properties
        }
    return properties or dict(zip(_hints(kind), whole.get("prefixItems", ()), strict=False))


def _marks(hint: Any, depth: int = 0) -> int:
    """Return how many places of an annotation are marked, without those inside its classes."""
    if depth > _DEEPEST:
        return 0
    if typing.get_origin(hint) is Annotated:
        inner, *metadata = typing.get_args(hint)
        if any(each is Sensitive or isinstance(each, Sensitive) for each in metadata):
            return 1
        return _marks(inner, depth + 1)
    return sum(_marks(each, depth + 1) for each in _within(hint))


def _within(hint: Any) -> tuple[Any, ...]:
    """Return the parts of an annotation: an alias's value, a new type's base, a generic type's arguments."""
    for name in ("__value__", "__supertype__"):
        if (inner := getattr(hint, name, None)) is not None:
            return (inner,)
    return () if isinstance(hint, type) and typing.get_origin(hint) is None else typing.get_args(hint)


def _marks_in_schema(schema: Schema, root: Schema, depth: int = 0) -> int:
    """Return how many places of a field's schema are marked, without those inside its objects."""
    if schema.get(SENSITIVE):
        return 1
    if depth > _DEEPEST or (depth and "properties" in schema):
        return 0
    return sum(_marks_in_schema(each, root, depth + 1) for each in steps_into(schema, root))


def _kinds(kind: type[Any], seen: list[type[Any]]) -> list[type[Any]]:
    """Return a class and all classes with fields that its fields hold."""
    if kind not in seen:
        seen.append(kind)
        for hint in _hints(kind).values():
            for each in _classes(hint):
                _kinds(each, seen)
    return seen


def _classes(hint: Any, depth: int = 0) -> Iterator[type[Any]]:
    if isinstance(hint, type) and _has_fields(hint):
        yield hint
    elif depth < _DEEPEST:
        inner = typing.get_args(hint)[:1] if typing.get_origin(hint) is Annotated else _within(hint)
        for each in inner:
            yield from _classes(each, depth + 1)


def _has_fields(kind: type[Any]) -> bool:
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    is_typed_dict = issubclass(kind, dict) and hasattr(kind, "__total__")
    return dataclasses.is_dataclass(kind) or is_named_tuple or is_typed_dict or issubclass(kind, BaseModel)
