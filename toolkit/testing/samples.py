"""Sample events: their documented example, or the smallest values that their schema allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from toolkit.declaration.events import Event, documented_example

E = TypeVar("E", bound=Event)

#: Texts of the formats that JSON schemas of pydantic's types name.
_FORMATS = {
    "date-time": "2030-01-01T12:00:00Z",
    "date": "2030-01-01",
    "time": "12:00:00Z",
    "duration": "PT1M",
    "uuid": "0190a1b2-c3d4-7e5f-8a6b-9c0d1e2f3a4b",
    "email": "ada@example.com",
    "uri": "https://example.com/",
}


def sample(event_type: type[E], *, like: Event | None = None, **fields: Any) -> E:
    """Return an event with these fields; the others are as in its documented example, or as in `like`, or small.

    Raises:
        ValueError: the schema does not tell which values are valid; the text names the cure.
    """
    schema = event_type.model_json_schema()
    small = _of(schema, schema.get("$defs", {}))
    passed_on = {name: value for name, value in like.model_dump(mode="json").items() if name in small} if like else {}
    drafts: list[dict[str, Any]] = [documented_example(event_type), small | passed_on, small]
    for draft in drafts:
        try:
            return event_type.model_validate({**draft, **fields}, by_name=True, by_alias=True)
        except ValidationError as error:
            fault = error
    raise ValueError(
        f"{event_type.__name__} has fields that no sample fits, {_faulty(fault)}: give it an example, "
        "model_config = {'json_schema_extra': {'examples': [{…}]}}, or pass one to Scenario(samples=[…])"
    ) from fault


def _faulty(fault: ValidationError) -> str:
    return ", ".join(".".join(map(str, each["loc"])) for each in fault.errors())


def _of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """Return a small value of this schema."""
    if "$ref" in schema:
        return _of(definitions[str(schema["$ref"]).rsplit("/", 1)[-1]], definitions)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return _of(schema[several][0], definitions)
    match schema.get("type"):
        case "object":
            properties, required = schema.get("properties", {}), schema.get("required", ())
            return {name: _of(properties[name], definitions) for name in required if name in properties}
        case "array":
            return [_of(schema.get("items", {}), definitions)] * int(schema.get("minItems", 0))
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            return least + (1 if "minimum" not in schema else 0)
        case "boolean":
            return True
        case "null":
            return None
    text = _FORMATS.get(str(schema.get("format")), "sample")
    return text.ljust(int(schema.get("minLength", 0)), "x")[: schema.get("maxLength")]
