"""An event as the bytes that go out, and whether the next service will read in them what the step returned.

A step's event is committed only if it survives its own JSON, fits into a message, and belongs to the saga that it
answers: what only the next service would notice would leave the saga half done.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from toolkit.declaration.events import Event, Saga
from toolkit.errors import StepError

#: So many faults of one event are named at most.
_MOST_FAULTS = 5


def encode(event: Event, *, saga: Saga, saga_id: str, most: int) -> bytes:
    """Return the body of an event that a step or a compensation returned.

    Raises:
        StepError: it is of another saga, is larger than `most` bytes, or does not survive its own JSON.
    """
    name = type(event).__name__
    if (own := own_id(event, saga)) not in (None, saga_id):
        raise StepError(
            f"the {name} is of the saga {own!r}, but answers an event of {saga_id!r}: "
            f"return it with `{saga.id_field}=event.{saga.id_field}`"
        )
    body = survived(event)
    if len(body) > most:
        raise StepError(
            f"the {name} has {len(body)} bytes as JSON, and messages of at most {most} are taken: "
            "keep what is large elsewhere and emit where it is, or raise SAGA_MAX_MESSAGE_BYTES in each service"
        )
    return body


@dataclass(frozen=True, slots=True)
class Original:
    """The event that a step emitted, as its log keeps it: under the name and the version that it had then."""

    body: str
    event_type: str
    version: int | None

    def read(self, step: str, kind: type[Event]) -> Event:
        """Return the event, for the compensation of the step.

        Raises:
            StepError: this release declares it otherwise: it may be readable, and mean something else.
        """
        version = kind.__version__ if self.version is None else self.version  # the log of before kept none
        if (self.event_type, version) != (kind.__name__, kind.__version__):
            raise StepError(
                f"{step} emitted {self.event_type} in version {version}, but this release declares {kind.__name__} in "
                f"version {kind.__version__}: undo it by a release that declares that, and redrive the letter there"
            )
        return kind.model_validate_json(self.body)


def own_id(event: Event, saga: Saga) -> str | None:
    """Return the saga's id as the event's body has it; None where it has none."""
    own = getattr(event, saga.id_field, None)
    return None if own is None else str(own)


def survived(event: Event) -> bytes:
    """Return an event's JSON, having read it again.

    Raises:
        StepError: that can't be written, can't be read, or is another event then; its text names fields, no values.
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
        raise StepError(f"the {kind.__name__} is another once it is read from its own JSON ({changed}): {_CURE}")
    return body


_CURE = "build it by its class, with valid values of types that JSON keeps as they are"


def faults_of(error: ValidationError) -> str:
    """Return which fields are at fault, and how, without their values."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_FAULTS]
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['type']}" for fault in faults)


def _changed(event: Event, again: Event) -> str:
    """Return the fields that differ; what is private to an object was never meant to go out."""
    return ", ".join(
        name for name in type(event).model_fields if not _is_same(getattr(event, name), getattr(again, name))
    )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, or are for all but Python: an ambiguous local time, an object's private parts."""
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
