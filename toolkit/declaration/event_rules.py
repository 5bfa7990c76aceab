"""The rules for an event's class that let each service read what any other emits; checked at the declaration.

By its types: the field of the saga's id accepts saga ids only, and JSON is written and read under the same names.
By trial: its documented example survives its JSON, and the toolkit can build it from an id and a reason alone.
"""

from __future__ import annotations

import itertools
import json
import sys
import typing
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

from pydantic import AliasChoices, AliasPath, BaseModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import SchemaValidator

from toolkit.declaration.encoding import encode, faults_of, survived
from toolkit.declaration.events import Event, Saga, documented_example, is_saga_id, routing_key
from toolkit.declaration.sensitive_rules import sensitive_faults
from toolkit.errors import DeclarationError, StepError

#: Values that are not saga ids: each breaks the rule in another way, as text or as a value that other types accept.
_NO_IDS: tuple[object, ...] = (
    "ORD/2024/001", "", " ", "a b", "-1", "_1", ".1", ":1", "a/", "a\n", "a\0", "é", "a" * 65, "1e16", "a%20b", "a#b",
    "2024-01-01T00:00:00", -1, 1e16, -0.5, None, True, [], {},
)  # fmt: skip
#: Saga ids: the shortest, one with a hyphen, the longest, and a UUID.
_IDS = ("1", "A-1", "a" * 64, "0190a1b2-c3d4-7e5f-8a6b-9c0d1e2f3a4b")
#: The empty reason, and one of 1,000 characters with some that JSON has to escape.
_REASONS = ("", 'é\x01"\\' + "x" * 996)
#: A routing key is one of AMQP's short strings: at most so many bytes.
_LONGEST_KEY = 255
#: An event's size is checked when it is emitted, against the service's own limit.
_NO_LIMIT = sys.maxsize
_SECRETS = (SecretStr, SecretBytes, Secret)


def check_event(where: str, event_type: type[Event], saga: Saga) -> None:
    """Check that each service can read an event of this class.

    Raises:
        DeclarationError: it can't; the text has the class, the fault and the cure.
    """
    for fault, cure in _faults(event_type, saga.id_field):
        raise DeclarationError(where, fault, cure)


def check_buildable(where: str, event_type: type[Event], saga: Saga, why: str) -> None:
    """Check that the toolkit can build the event from the saga's id and a reason alone.

    Raises:
        DeclarationError: it can't.
    """
    required = {name for name, info in event_type.model_fields.items() if info.is_required()}
    cure = f"Give every field but {saga.id_field!r} and 'reason' a default"
    if extra := sorted(required - {saga.id_field, "reason"}):
        raise DeclarationError(where, f"{event_type.__name__} requires {', '.join(extra)}, but {why}", cure)
    ids = [each for each in _IDS if _taken(saga.starts_with, saga.id_field, each) == each]
    for saga_id, reason in itertools.product(ids, _REASONS):
        if fault := _build_fault(event_type, saga, saga_id, reason):
            fault = f"{event_type.__name__} can't be built for a saga {saga_id!r} ({fault}), but {why}"
            raise DeclarationError(where, fault, f"{cure}, and let it accept each id and each reason")


def check_saga(saga: Saga) -> None:
    """Check that the starting event has a required field with the saga's id.

    Raises:
        DeclarationError: it has none.
    """
    where, event_type = f"Saga {saga.name!r}", saga.starts_with
    info = event_type.model_fields.get(saga.id_field)
    if info is None or not info.is_required():
        fault = f"{event_type.__name__}, which starts it, has no required field {saga.id_field!r}"
        raise DeclarationError(
            where, fault, f"Declare `{saga.id_field}: SagaId` in it: the starting event names its saga"
        )
    check_event(where, event_type, saga)


@cache
def _faults(event_type: type[Event], id_field: str) -> tuple[tuple[str, str], ...]:
    event_type.model_rebuild(raise_errors=False)
    rules = (
        _key_faults(event_type),
        _id_faults(event_type, id_field),
        _name_faults(event_type),
        sensitive_faults(event_type),
        _trial(event_type),
    )
    return tuple(itertools.chain.from_iterable(rules))


def _key_faults(event_type: type[Event]) -> Iterator[tuple[str, str]]:
    if len(routing_key(event_type).encode()) > _LONGEST_KEY:
        yield f"the routing key of {event_type.__name__} has more than {_LONGEST_KEY} bytes", "Shorten its name"


def _id_faults(event_type: type[Event], id_field: str) -> Iterator[tuple[str, str]]:
    """Yield the faults of the field of the saga's id; without such a field, only the envelope has the id."""
    if id_field not in event_type.model_fields:
        return
    for probe in _NO_IDS:
        taken = _taken(event_type, id_field, probe)
        if taken is not None and not is_saga_id(taken):
            fault = f"{event_type.__name__}.{id_field} accepts {probe!r}, which can't be a saga's id"
            yield fault, f"Declare `{id_field}: SagaId`; an id of another form goes into a field of its own"
            return


def _taken(event_type: type[Event], id_field: str, probe: object) -> str | None:
    """Return the id that the field parses from a value in JSON; None where it rejects the value."""
    try:
        value = _validator(event_type, id_field).validate_json(json.dumps(probe))
    except Exception:  # noqa: BLE001 -- a validator of the author's own may raise anything: the value is rejected
        return None
    return "" if value is None else str(value)


@cache
def _validator(event_type: type[Event], name: str) -> SchemaValidator:
    """Return a validator of one field alone, with the author's own validators."""
    schema: Any = event_type.__pydantic_core_schema__
    definitions = schema.get("definitions", []) if schema["type"] == "definitions" else []
    field = next(each[name] for each in _fields(schema) if name in each)["schema"]
    whole = {"type": "definitions", "schema": field, "definitions": definitions} if definitions else field
    return SchemaValidator(whole)


def _fields(schema: Any) -> Iterator[Any]:
    """Yield the fields of the outermost model of a schema."""
    while schema["type"] != "model-fields":
        schema = schema["schema"]
    yield schema["fields"]


def _name_faults(event_type: type[Event]) -> Iterator[tuple[str, str]]:
    """Yield the fields that the JSON lacks, hides or has under another name, also in models within the event."""
    for model in _models(event_type, []):
        if model.model_config.get("extra") == "forbid" and (computed := sorted(model.model_computed_fields)):
            fault = f"{model.__name__}.{computed[0]} is computed, and extra='forbid' refuses it in the JSON"
            yield fault, "Make it a property, or leave `extra` as it is"
        for name, info in model.model_fields.items():
            field = f"{model.__name__}.{name}"
            if info.exclude:
                yield f"{field} is excluded from the JSON, so that the next service lacks it", "Remove `exclude`"
            elif _written(model, name, info) not in _read(model, name, info):
                fault = f"{field} is written to JSON as {_written(model, name, info)!r}, and not read under that name"
                yield fault, "Remove the alias, or set serialize_by_alias=True and validate_by_name=True"
            elif not _has_serializer(model, name) and any(issubclass(each, _SECRETS) for each in _classes(info)):
                yield (
                    f"{field} is a secret, which is written to JSON as asterisks",
                    ("Declare `Annotated[str, Sensitive]`: it is sent as it is, and shown as asterisks"),
                )


def _written(model: type[BaseModel], name: str, info: FieldInfo) -> str:
    return (info.serialization_alias or name) if model.model_config.get("serialize_by_alias") else name


def _read(model: type[BaseModel], name: str, info: FieldInfo) -> set[str]:
    config = model.model_config
    by_name = config.get("validate_by_name") or config.get("populate_by_name") or info.validation_alias is None
    by_alias = set(_aliases(info.validation_alias)) if config.get("validate_by_alias", True) else set()
    return by_alias | ({name} if by_name else set())


def _aliases(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return (each for each in choices if isinstance(each, str))


def _has_serializer(model: type[BaseModel], name: str) -> bool:
    decorators = model.__pydantic_decorators__
    named = [set(each.info.fields) for each in decorators.field_serializers.values()]
    return bool(decorators.model_serializers) or any({name, "*"} & each for each in named)


def _models(model: type[BaseModel], seen: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """Return this model and all models within its fields."""
    if model not in seen:
        seen.append(model)
        for info in model.model_fields.values():
            for each in _classes(info):
                if issubclass(each, BaseModel):
                    _models(each, seen)
    return seen


def _classes(info: FieldInfo) -> Iterator[type]:
    hints = [info.annotation]
    while hints:
        hint = hints.pop()
        if (alias := getattr(hint, "__value__", None)) is not None:  # `type Name = ...`
            hints.append(alias)
        elif arguments := typing.get_args(hint):
            hints += arguments[:1] if typing.get_origin(hint) is Annotated else arguments
        if isinstance(each := typing.get_origin(hint) or hint, type):
            yield each


def _trial(event_type: type[Event]) -> Iterator[tuple[str, str]]:
    """Yield the fault that the event's documented example shows, where the example is valid."""
    try:
        survived(event_type.model_validate(documented_example(event_type)))
    except StepError as error:
        yield f"its documented example shows: {error}", "Change the field's type, its serializer or its validator"
    except Exception:  # noqa: BLE001 -- an invalid example shows nothing; a validator of the author's own may raise anything
        return


def _build_fault(event_type: type[Event], saga: Saga, saga_id: str, reason: str) -> str | None:
    try:
        event = saga.build(event_type, saga_id=saga_id, reason=reason)
        encode(event, saga=saga, saga_id=saga_id, most=_NO_LIMIT)
    except ValidationError as error:
        return faults_of(error)
    except StepError as error:
        return str(error)
    return None
