"""Compares the rules for single values: types are the same here, what differs is how narrow the schemas are.

A bound that only the reader has, or that is tighter there, refuses values that the writer may write. A pattern or a
format is compared as text: whether one regular expression contains another is not decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.compatibility.differences import Difference, Kind

Schema = Mapping[str, Any]

#: The lower bounds, and the upper ones, each with what it counts.
_LEAST = {"minLength": "characters", "minItems": "items", "minProperties": "fields"}
_MOST = {"maxLength": "characters", "maxItems": "items", "maxProperties": "fields"}
#: Keywords that refuse no value, or are compared elsewhere.
_NO_RULES = {
    *("$comment", "$defs", "$id", "$ref", "$schema", "definitions", "discriminator"),
    *("default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly"),
    *("allOf", "anyOf", "oneOf", "const", "enum", "type"),
    *("additionalProperties", "items", "prefixItems", "properties", "propertyNames", "required"),
    *("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf", "uniqueItems"),
    *_LEAST,
    *_MOST,
}
#: The types of JSON by Python's; a boolean is an int in Python, so it is asked first.
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"),
    (list, "array"), (dict, "object"), (type(None), "null"),
)  # fmt: skip


def narrower(writer: Schema, reader: Schema, path: str) -> Iterator[Difference]:
    """Yield each rule of the reader that values of the writer may break; both have one type."""
    yield from (Difference(Kind.NARROWED, path, text) for text in _texts(writer, reader))


def value_schema(value: Any) -> Schema:
    """Return a schema that takes this value, and others of its size at most."""
    kind = next((name for known, name in _TYPES if isinstance(value, known)), "null")
    if kind == "string":
        return {"type": kind, "minLength": len(value), "maxLength": len(value)}
    if kind in ("integer", "number"):
        return {"type": kind, "minimum": value, "maximum": value}
    return {"type": kind}


def values_of(schema: Schema) -> list[Any] | None:
    """Return the values that a schema lists; None where it lists none."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return list(listed) if isinstance(listed, list) else None


def is_listed(value: Any, listed: list[Any]) -> bool:
    """Whether a value is among these; `True` is not 1 in JSON."""
    return any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in listed)


def _texts(writer: Schema, reader: Schema) -> Iterator[str]:
    for name, unit in _LEAST.items():
        if (least := reader.get(name, 0)) > (may_be := writer.get(name, 0)):
            yield f"may have {may_be} {unit}, and at least {least} are taken"
    for name, unit in _MOST.items():
        most, longest = reader.get(name), writer.get(name)
        if most is not None and (longest is None or longest > most):
            yield f"may have {'any number of' if longest is None else longest} {unit}, and at most {most} are taken"
    yield from _bounds(writer, reader)
    if (step := reader.get("multipleOf")) and (not writer.get("multipleOf") or writer["multipleOf"] % step):
        yield f"may be no multiple of {step}, and only these are taken"
    if reader.get("uniqueItems") and not writer.get("uniqueItems"):
        yield "may have equal items, and only different ones are taken"
    for name in sorted(set(reader) - _NO_RULES):
        if not name.startswith("x-") and writer.get(name) != reader[name]:
            yield f"is taken by the rule {name} {reader[name]!r}, and written {_by(writer.get(name))}"


def _by(rule: Any) -> str:
    return "without it" if rule is None else f"by {rule!r}"


def _bounds(writer: Schema, reader: Schema) -> Iterator[str]:
    least, smallest = _bound(reader, "inimum", max), _bound(writer, "inimum", max)
    if least and (smallest is None or smallest < least):
        yield f"may be {_shown(smallest, 'any small number')}, and {_than(least, 'at least', 'more than')} is taken"
    most, largest = _bound(reader, "aximum", min), _bound(writer, "aximum", min)
    if most and (largest is None or largest > most):
        yield f"may be {_shown(largest, 'any large number')}, and {_than(most, 'at most', 'less than')} is taken"


def _bound(schema: Schema, name: str, tighter: Any) -> tuple[float, int] | None:
    """Return a bound so that bounds compare: an exclusive one is tighter than the same inclusive one."""
    step = 1 if tighter is max else -1
    inclusive, exclusive = schema.get(f"m{name}"), schema.get(f"exclusiveM{name}")
    found = [(inclusive, 0)] if inclusive is not None else []
    found += [(exclusive, step)] if exclusive is not None else []
    return tighter(found) if found else None


def _shown(bound: tuple[float, int] | None, otherwise: str) -> str:
    return otherwise if bound is None else str(bound[0])


def _than(bound: tuple[float, int], inclusive: str, exclusive: str) -> str:
    return f"{exclusive if bound[1] else inclusive} {bound[0]}"
