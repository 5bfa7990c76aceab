"""Compares two JSON schemas of an event: may a body that its writer wrote be refused by its reader?

The schemas are those that Pydantic makes. What is not decided counts as a difference, so that no difference is missed:
two other regular expressions, say. A body comes from the writer's declaration, so it has the declared fields and no
others.
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.compatibility.differences import Difference, Kind
from toolkit.compatibility.scalars import Schema, is_listed, narrower, value_schema, values_of

_ALTERNATIVES = ("anyOf", "oneOf")
#: Keywords that narrow no value; a schema of these alone takes anything.
_WORDS = ("title", "description", "default", "examples", "deprecated", "$defs", "$schema", "$comment")


def differences(writer: Schema, reader: Schema, *, is_complete: bool = True) -> list[Difference]:
    """Return what a reader does not take of a writer's bodies; nothing where it reads each of them.

    `is_complete`: the writer leaves out no declared field, as a service that emits an event; a client may.
    """
    if writer == reader and is_complete:
        return []
    return list(dict.fromkeys(_Comparison(writer, reader, is_complete=is_complete).of(writer, reader, "")))


def fields_of(schema: Schema) -> set[str]:
    """Return the paths of all fields that a schema declares, dots into objects and `*` for items."""
    found: set[str] = set()
    _collect(schema, schema, "", found, ())
    return found


class _Comparison:
    """Two schemas with the definitions that their references name."""

    def __init__(self, writer: Schema, reader: Schema, *, is_complete: bool) -> None:
        self._writer = writer
        self._reader = reader
        self._is_complete = is_complete
        #: References that are being compared: within themselves they differ no more than they do here.
        self._open: set[tuple[str, str]] = set()

    def of(self, writer: Schema, reader: Schema, path: str) -> Iterator[Difference]:
        """Yield the differences of a part: each alternative of the writer has to fit one of the reader."""
        pair = str(writer.get("$ref", "")), str(reader.get("$ref", ""))
        if all(pair) and pair in self._open:
            return
        self._open.add(pair)
        written, taken = list(_alternatives(writer, self._writer)), list(_alternatives(reader, self._reader))
        if _is_decimal(taken) and not _is_decimal(written):  # its texts are numbers, which the schema does not say
            taken = [each for each in taken if each.get("type") != "string"]
        for each in written:
            yield from self._fits_one(each, taken, path)
        self._open.discard(pair)

    def _fits_one(self, writer: Schema, taken: list[Schema], path: str) -> Iterator[Difference]:
        found = [list(self._one(writer, reader, path)) for reader in taken]
        if all(found):
            nearest = min(found, key=lambda each: (each[0].kind is Kind.TYPE, len(each)))
            yield from nearest

    def _one(self, writer: Schema, reader: Schema, path: str) -> Iterator[Difference]:
        written, listed = values_of(writer), values_of(reader)
        if listed is not None:
            yield from _listed(writer, listed, path)
        elif written is not None:
            for value in written:
                yield from self._one(value_schema(value), reader, path)
        elif _has_no_rule(reader):
            return
        elif (fault := _type_fault(writer, reader)) is not None:
            yield Difference(Kind.NULL if writer.get("type") == "null" else Kind.TYPE, path, fault)
        else:
            yield from narrower(writer, reader, path)
            if writer.get("type") == "array":
                yield from self._items(writer, reader, path)
            elif writer.get("type") == "object":
                yield from self._fields(writer, reader, path)

    def _items(self, writer: Schema, reader: Schema, path: str) -> Iterator[Difference]:
        """Compare the items of lists, one by one where their places have schemas of their own."""
        inside = f"{path}.*" if path else "*"
        places = max(len(writer.get("prefixItems", ())), len(reader.get("prefixItems", ())))
        for place in range(places):
            yield from self.of(_item(writer, place), _item(reader, place), inside)
        if not places or isinstance(writer.get("items"), dict):
            yield from self.of(_item(writer, places), _item(reader, places), inside)

    def _fields(self, writer: Schema, reader: Schema, path: str) -> Iterator[Difference]:
        written, taken = writer.get("properties", {}), reader.get("properties", {})
        renamed = dict(self._renamed(writer, reader))
        for name in reader.get("required", ()):
            where = _within(path, name)
            if name in renamed:
                text = f"is required, and named {renamed[name]} in what is sent"
                yield Difference(Kind.RENAMED, where, text)
            elif name not in written:
                yield Difference(Kind.REQUIRED, where, "is required, and is not sent")
            elif not self._is_complete and name not in writer.get("required", ()):
                yield Difference(Kind.LEFT_OUT, where, "is required, and may be left out")
        for name, schema in written.items():
            if name in taken:
                yield from self.of(schema, taken[name], _within(path, name))
            elif name not in renamed.values():
                yield from self._other(schema, reader, _within(path, name))
        if (others := writer.get("additionalProperties", False)) is not False:
            yield from self._other({} if others is True else others, reader, f"{path}.*" if path else "*")
        if "propertyNames" in reader:
            yield from self.of(writer.get("propertyNames", {"type": "string"}), reader["propertyNames"], path)

    def _other(self, schema: Schema, reader: Schema, path: str) -> Iterator[Difference]:
        """Compare a field that the reader does not name."""
        others = reader.get("additionalProperties", True)
        if others is False:
            yield Difference(Kind.UNKNOWN, path, "is sent, and no unknown field is taken")
        elif isinstance(others, dict):
            yield from self.of(schema, others, path)

    def _renamed(self, writer: Schema, reader: Schema) -> Iterator[tuple[str, str]]:
        """Yield each required name that only the reader has, with the one of the same schema that only the writer has.

        Where several names fit, which one was meant is not guessed.
        """
        written, taken = writer.get("properties", {}), reader.get("properties", {})
        gone = {name: schema for name, schema in written.items() if name not in taken}
        new = [name for name in reader.get("required", ()) if name not in written and name in taken]
        for name in new:
            same = [each for each, schema in gone.items() if not [*self.of(schema, taken[name], "")]]
            if len(same) == 1 and len(new) == 1:
                yield name, same[0]


def _listed(writer: Schema, listed: list[object], path: str) -> Iterator[Difference]:
    """Yield the values that a writer may write, and that are not among those which its reader lists."""
    shown = ", ".join(map(repr, listed))
    written = [None] if writer.get("type") == "null" else values_of(writer)
    if written is None:
        yield Difference(Kind.NARROWED, path, f"may be any {writer.get('type', 'value')}, and is taken only as {shown}")
    for value in written or ():
        if not is_listed(value, listed):
            kind = Kind.NULL if value is None else Kind.NARROWED
            written_as = "null" if value is None else repr(value)
            yield Difference(kind, path, f"may be {written_as}, which is not among {shown}")


def _type_fault(writer: Schema, reader: Schema) -> str | None:
    written, taken = writer.get("type"), reader.get("type")
    if taken is None or written == taken or (written, taken) == ("integer", "number"):
        return None
    if written == "null":
        return f"may be null, and only {taken} is taken"
    return f"is sent as {written or 'any type'}, and taken as {taken}"


def _is_decimal(alternatives: list[Schema]) -> bool:
    """Whether this is how Pydantic describes a decimal: a number, or a text of any kind."""
    return {"number", "string"} <= {each.get("type") for each in alternatives}


def _has_no_rule(schema: Schema) -> bool:
    return all(name in _WORDS or name.startswith("x-") for name in schema)


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _item(schema: Schema, place: int) -> Schema:
    places = schema.get("prefixItems", ())
    found = places[place] if place < len(places) else schema.get("items", {})
    return found if isinstance(found, dict) else {}


def _alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """Yield the schemas of which one applies, their references and lists of types resolved."""
    schema = _resolved(schema, root)
    word = next((each for each in _ALTERNATIVES if each in schema), None)
    if word:
        rest = {name: value for name, value in schema.items() if name != word}
        for each in schema[word]:
            yield from _alternatives({**rest, **each}, root)
    elif isinstance(schema.get("type"), list):
        yield from ({**schema, "type": each} for each in schema["type"])
    else:
        yield schema


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Return a schema with what its reference names, and with what all of its parts demand."""
    while "$ref" in schema or "allOf" in schema:
        rest = {name: value for name, value in schema.items() if name not in ("$ref", "allOf")}
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        parts = [root.get("$defs", {}).get(name, {})] if "$ref" in schema else []
        for part in [*parts, *schema.get("allOf", ())]:
            rest = {**_resolved(part, root), **rest}
        schema = rest
    return schema


def _collect(schema: Schema, root: Schema, path: str, found: set[str], inside: tuple[str, ...]) -> None:
    reference = str(schema.get("$ref", ""))
    if reference and reference in inside:  # a model within itself: the same fields again
        return
    inside = (*inside, reference) if reference else inside
    for each in _alternatives(schema, root):
        for name, field in each.get("properties", {}).items():
            found.add(_within(path, name))
            _collect(field, root, _within(path, name), found, inside)
        behind = (each.get("items"), each.get("additionalProperties"), *each.get("prefixItems", ()))
        for item in (one for one in behind if isinstance(one, dict)):
            _collect(item, root, f"{path}.*" if path else "*", found, inside)
