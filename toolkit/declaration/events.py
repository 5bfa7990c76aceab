"""The decoder of a choreography: events, refusals, and the saga that they tell.

An event is a frozen Pydantic model that names its owner, the one service which may emit it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NewType

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from toolkit.errors import DeclarationError
from toolkit.protocol.fence import SagaState as SagaState

#: The identity of one saga, chosen by whoever starts it: an order number, say. Printable, so that it can
#: stand in a URL, a log line and a shell command without quoting.
SagaId = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*$")]

#: A saga's type stands before the id, and a colon between them; so the type has none.
#: What may stand between the dots of a routing key and of a queue's name, and in a file's.
PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")

#: The toolkit's own events, which each service consumes.
_CONTROL_NAMES = ("SagaEnded", "AbortRequested", "EndRequested")

_SAGA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")

#: What tells whether a value is one, and why not.
SAGA_ID: TypeAdapter[str] = TypeAdapter(SagaId)

#: What an external step hands to the outside world so that a repeated call is the same call: `saga_type:saga_id:step`.
IdempotencyKey = NewType("IdempotencyKey", str)

#: How an event's JSON schema says that a field is sensitive.
SENSITIVE = "x-sensitive"


class Sensitive:
    """Marks a field that nobody is shown: `customer_email: Annotated[str, Sensitive]`.

    It travels and is stored as it is; the API, the console, the command line, logs and traces have `***` instead.
    """

    def __class_getitem__(cls, item: object) -> None:
        """Refuse `Sensitive[str]`."""
        raise _no_type()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Leave the field's type as it is; the mark itself is none."""
        if source is cls:
            raise _no_type()
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Mark the field in its event's JSON schema, which is what everybody goes by."""
        return handler(core) | {SENSITIVE: True}


def _no_type() -> DeclarationError:
    return DeclarationError("Sensitive", "it is a mark and no type", "Write `Annotated[str, Sensitive]`")


#: A reason is for people, and travels with each event of the way back: so many characters, and no more.
_LONGEST_REASON = 1000


def bounded(reason: str) -> str:
    """Return as much of a reason as is passed on, and without NUL, which PostgreSQL keeps in no text."""
    return reason.replace("\0", "")[:_LONGEST_REASON]


#: Why something did not come about.
Reason = Annotated[str, AfterValidator(bounded)]


class Event(BaseModel):
    """Something that happened, told to whoever listens.

    Subclasses name their owner: `class OrderCreated(Event, owner="order")`. The class name is the event's
    name on the wire. Fields of a newer producer are ignored, missing ones are an error.

    - `version`: raised with every incompatible change; a participant takes only the version it knows.
    - `optional`: nobody has to listen. Without it, an event that no queue is bound to is kept and retried.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    __owner__: ClassVar[str] = ""
    __version__: ClassVar[int] = 1
    __optional__: ClassVar[bool] = False

    def __init_subclass__(cls, *, owner: str = "", version: int = 1, optional: bool = False, **kwargs: Any) -> None:
        try:
            super().__init_subclass__(**kwargs)
        except TypeError as error:
            cure = "An event takes owner=, version= and optional=, and Pydantic's own settings"
            where = f"{cls.__module__}.{cls.__name__}"
            raise DeclarationError(where, f"its class keyword {', '.join(kwargs)} is none", cure) from error
        _check_names(cls, owner, version)
        cls.__owner__ = owner or cls.__owner__
        cls.__version__ = version
        cls.__optional__ = optional


def _check_names(event_type: type[Event], owner: str, version: int) -> None:
    """Check what stands for the event on the wire; the control messages' owner and names are the toolkit's.

    Raises:
        DeclarationError: another event has one of these, or the owner is no part of a routing key.
    """
    where = f"{event_type.__module__}.{event_type.__name__}"
    if owner and not (isinstance(owner, str) and PLAIN_WORD.fullmatch(owner)):
        cure = "Take letters, digits, `_` and `-`, 64 at most: it is the first part of the event's routing key"
        raise DeclarationError(where, f"its owner {owner!r} is no plain word", cure)
    if not (type(version) is int and version > 0):
        raise DeclarationError(where, f"its version {version!r} is no whole number from 1", "Count from 1")
    if event_type.__module__ != __name__ and (owner == "saga" or event_type.__name__ in _CONTROL_NAMES):
        raise DeclarationError(where, "its owner or its name is that of a control message", "Rename it")


def routing_key(event_type: type[Event]) -> str:
    """Return `<owner>.<EventName>`, so that a broker can grant each service only its own keys."""
    return f"{event_type.__owner__}.{event_type.__name__}"


def documented_example(event_type: type[Event]) -> dict[str, Any]:
    """Return the first example in the event's own schema, or an empty dict."""
    extra = event_type.model_config.get("json_schema_extra")
    examples = extra.get("examples") if isinstance(extra, dict) else None
    return dict(examples[0]) if isinstance(examples, list) and isinstance(examples[0], dict) else {}


class Refusal(Event):
    """A step's no: the business outcome that starts the way back. It is returned, never raised."""

    reason: Reason


class SagaEnded(Event, owner="saga"):
    """Control message: these sagas have ended, and how. One message closes all that ended in a batch."""

    saga_type: str
    completed: tuple[SagaId, ...] = Field((), max_length=1000)  # no batch is larger, and one statement takes them all
    failed: tuple[SagaId, ...] = Field((), max_length=1000)


class AbortRequested(Event, owner="saga"):
    """Control message: whoever has not done its step of this saga yet shall refuse it."""

    saga_type: str
    saga_id: SagaId
    reason: Reason


class EndRequested(Event, owner="saga", optional=True):
    """Control message: a service has missed the end of this saga; the service that ended it says once more how."""

    saga_type: str
    saga_id: SagaId


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """A business transaction across services: how it begins, and the two ways in which it ends.

    - `id_field`: the field of the events that holds the saga's id, `order_id` say.
    - `starts_with`: the event that anyone may send to start one.
    - `completes_with`, `fails_with`: the events whose emission ends it.
    """

    name: str
    id_field: str
    starts_with: type[Event]
    completes_with: type[Event]
    fails_with: type[Event]

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _SAGA_NAME.fullmatch(self.name)):
            raise DeclarationError(
                f"Saga {self.name!r}",
                "its name is no plain word, and it is half of each saga's identity",
                "Take letters, digits, `.`, `_` and `-`, 64 at most",
            )

    def build(self, event_type: type[Event], *, saga_id: str, reason: str) -> Event:
        """Return an event that is known by its saga alone: nothing was done, so there is nothing else to tell."""
        facts = {self.id_field: saga_id, "reason": bounded(reason)}
        known = {name: fact for name, fact in facts.items() if name in event_type.model_fields}
        return event_type.model_validate(known, by_name=True)

    def state_after(self, event_type: type[Event]) -> SagaState:
        """Return the saga's state once a step has emitted this event."""
        if event_type is self.completes_with:
            return SagaState.COMPLETED
        if event_type is self.fails_with:
            return SagaState.FAILED
        return SagaState.PENDING


def is_saga_id(value: str) -> bool:
    """Whether this can be a saga's id at all."""
    try:
        SAGA_ID.validate_python(value)
    except ValidationError:
        return False
    return True
