"""Encode an event as JSON, and check that the next service decodes the same event from it.

A step's event is committed only if it survives its own JSON, fits into a message, and belongs to the saga that it
answers: a fault that only the next service notices would leave the saga half done.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from toolkit.declaration.events import Event, Saga
from toolkit.errors import StepError
from toolkit.protocol.joins import GatheredEvent

#: The most faults of one event that an error names.
_MOST_FAULTS = 5


def encode(event: Event, *, saga: Saga, saga_id: str, most: int) -> bytes:
    """Return the body of an event that a step or a compensation returned.

    Raises:
        StepError: it belongs to another saga, is larger than `most` bytes, or does not survive its own JSON.
    """
    name = type(event).__name__
    if (own := own_id(event, saga)) not in (None, saga_id):
        raise StepError(
            f"the {name} belongs to the saga {own!r}, but answers an event of {saga_id!r}: "
            f"return it with `{saga.id_field}=event.{saga.id_field}`"
        )
    body = survived(event)
    if len(body) > most:
        raise StepError(
            f"the {name} has {len(body)} bytes as JSON, more than the limit of {most}: "
            "store large data elsewhere and emit a reference to it, or raise SAGA_MAX_MESSAGE_BYTES in each service"
        )
    return body


@dataclass(frozen=True, slots=True)
class Original:
    """The event that a step emitted, as its log keeps it: with the name and version it had when it was emitted."""

    body: str
    event_type: str
    version: int | None

    def read(self, step: str, kind: type[Event]) -> Event:
        """Return the event, for the compensation of the step.

        Raises:
            StepError: this release declares another name or version: the body might parse, and mean something else.
        """
        version = kind.__version__ if self.version is None else self.version  # older log entries have no version
        if (self.event_type, version) != (kind.__name__, kind.__version__):
            raise _other_version(f"{step} emitted {self.event_type} in version {version}", kind, version)
        return kind.model_validate_json(self.body)


def read_gathered(gathered: GatheredEvent, step: str, kind: type[Event]) -> Event:
    """Return an event that a join has gathered, from its log.

    Raises:
        StepError: this release declares another version: the body might parse, and mean something else.
    """
    if gathered.version != kind.__version__:
        taken = f"{step} has gathered {gathered.event_type} in version {gathered.version}"
        raise _other_version(taken, kind, gathered.version)
    return kind.model_validate_json(gathered.body)


def _other_version(what: str, kind: type[Event], version: int | None) -> StepError:
    return StepError(
        f"{what}, but this release declares {kind.__name__} in version {kind.__version__}: redrive the dead letter "
        f"with a release that declares version {version}"
    )


def own_id(event: Event, saga: Saga) -> str | None:
    """Return the saga's id from the event's body; None where the body has none."""
    own = getattr(event, saga.id_field, None)
    return None if own is None else str(own)


def survived(event: Event) -> bytes:
    """Return an event's JSON after decoding it once.

    Raises:
        StepError: the JSON can't be written, can't be read, or gives another event; the text names fields, no values.
    """
    kind = type(event)
    try:
        body = event.model_dump_json(warnings=False).encode()
    except Exception as error:  # noqa: BLE001 -- a field's own serializer may raise anything
        raise StepError(f"the {kind.__name__} can't be written as JSON ({type(error).__name__}): {_CURE}") from None
    try:
        again = kind.model_validate_json(body)
    except ValidationError as error:
        raise StepError(f"the {kind.__name__} can't be read from its own JSON ({faults_of(error)}): {_CURE}") from None
    except Exception as error:  # noqa: BLE001 -- a field's own validator may raise anything
        fault = type(error).__name__
        raise StepError(f"the {kind.__name__} can't be read from its own JSON ({fault}): {_CURE}") from None
    if again != event and (changed := _changed(event, again)):
        raise StepError(f"the {kind.__name__} changes when it is read from its own JSON ({changed}): {_CURE}")
    return body


_CURE = "build it with its class, from valid values of types that JSON preserves"


def faults_of(error: ValidationError) -> str:
    """Return the invalid fields and the kind of each fault, without their values."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_FAULTS]
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['type']}" for fault in faults)


def _changed(event: Event, again: Event) -> str:
    """Return the fields that differ; private attributes are not part of the event."""
    return ", ".join(
        name for name in type(event).model_fields if not _is_same(getattr(event, name), getattr(again, name))
    )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, or differ only as Python objects: an ambiguous local time, private attributes."""
    if one == other:
        return True
    if isinstance(one, datetime) and isinstance(other, datetime):
        return bool(one.tzinfo and other.tzinfo) and one.astimezone(UTC) == other.astimezone(UTC)
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseModel):
        return all(_is_same(getattr(one, name), getattr(other, name)) for name in type(one).model_fields)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return False
