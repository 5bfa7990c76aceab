"""Whether a service reads an event as another release emits it: the routing key, the version, then the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.compatibility.schemas import differences
from toolkit.declaration.contract import EventContract, UpcasterContract

#: Parts of a schema whose keys are names of fields, not keywords.
_OF_NAMES = ("properties", "$defs", "patternProperties")
#: Keywords that say nothing about a body.
_WORDS = ("title", "description", "default", "examples", "deprecated")

#: The rules for what is no schema.
OWNER, VERSION = "owner changed", "version not read"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an event is not read: the rule, the field's path or nothing, and the fault in words.

    `is_certain`: no body of it is read; else it depends on the body's values.
    """

    rule: str
    path: str
    text: str
    is_certain: bool

    def __str__(self) -> str:
        return f"`{self.path}` {self.text}" if self.path else self.text


def faults_of(sent: EventContract, taken: EventContract, *, is_complete: bool = True) -> tuple[Fault, ...]:
    """Return why a service that declares an event as `taken` does not read it as `sent`; nothing where it does.

    `is_complete`: the sender leaves out no declared field, as a service; a client may.
    """
    if sent.routing_key != taken.routing_key:
        text = f"it is published as {sent.routing_key}, and consumed as {taken.routing_key}"
        return (Fault(OWNER, "", text, is_certain=True),)
    schema = taken.json_schema
    if sent.version != taken.version:
        path = _path(sent.version, taken)
        if path is None:
            text = f"version {sent.version} is sent, version {taken.version} is taken, and no upcaster leads there"
            return (Fault(VERSION, "", text, is_certain=True),)
        if (schema_of_first := path[0].json_schema) is None:
            return ()
        schema = schema_of_first
    found = differences(sent.json_schema, schema, is_complete=is_complete)
    return tuple(Fault(each.kind.value, each.path, each.text, each.kind.is_certain) for each in found)


def is_same_form(one: EventContract, other: EventContract) -> bool:
    """Whether two declarations of an event describe the same messages, whatever their words."""
    if (one.routing_key, one.version) != (other.routing_key, other.version):
        return False
    return bool(_bare(one.json_schema) == _bare(other.json_schema))


def _path(version: int, taken: EventContract) -> list[UpcasterContract] | None:
    """Return upcasters that lead from a version to the one that is taken; None where none do."""
    ways: dict[int, list[UpcasterContract]] = {version: []}
    waiting = [version]
    while waiting:
        reached = waiting.pop(0)
        for each in taken.upcasters:
            if each.from_version == reached and each.to_version not in ways:
                ways[each.to_version] = [*ways[reached], each]
                waiting.append(each.to_version)
    return ways.get(taken.version)


def _bare(schema: Any) -> Any:
    """Return a schema without the words that people read."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = ((name, value) for name, value in schema.items() if name not in _WORDS and not name.startswith("x-"))
    return {
        name: {each: _bare(one) for each, one in value.items()} if name in _OF_NAMES else _bare(value)
        for name, value in kept
    }
