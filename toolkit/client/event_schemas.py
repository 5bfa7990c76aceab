"""An event's JSON schema, as a contract shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema behind its references, and the other alternative of one that may be null.

    A type may be defined by itself alone; such a schema is returned as it is.
    """
    seen = set[str]()
    while True:
        alternatives = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
        if reference := schema.get("$ref"):
            name = str(reference).rpartition("/")[2]
            if name in seen:
                return schema
            seen.add(name)
            schema = {**root.get("$defs", {}).get(name, {}), **_besides(schema, "$ref")}
        elif len(alternatives) == 1:
            schema = {**alternatives[0], **_besides(schema, "anyOf")}
        else:
            return schema


def _besides(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}
