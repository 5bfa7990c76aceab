"""Events, refusals, and the saga that they belong to.

An event is a frozen Pydantic model that names its owner, the one service that may emit it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, NewType

from pydantic import (
    AfterValidator,
    AwareDatetime,
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
from toolkit.protocol.control_events import CONTROL_NAMES
from toolkit.protocol.fence import SagaState as SagaState

#: The identity of one saga, chosen by the client that starts it, such as an order number. Its characters need no
#: quoting in a URL, a log line or a shell command.
SagaId = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*$")]

#: A word between the dots of a routing key or a queue's name, or in a file's name.
PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")

#: A saga's type; it has no colon, since a colon separates it from the id.
_SAGA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")

#: Validates a saga's id; its error gives the reason.
SAGA_ID: TypeAdapter[str] = TypeAdapter(SagaId)

#: Identifies an external step's call to the outside system, so that a repeated call is the same call:
#: `saga_type:saga_id:step`.
IdempotencyKey = NewType("IdempotencyKey", str)

#: The keyword that marks a sensitive field in an event's JSON schema.
SENSITIVE = "x-sensitive"


class Sensitive:
    """Marks a field that is redacted wherever it is shown: `customer_email: Annotated[str, Sensitive]`.

    Messages and tables hold its value; the API, the console, the command line, logs and traces show `***` instead.
    """

    def __class_getitem__(cls, item: object) -> None:
        """Refuse `Sensitive[str]`."""
        raise _no_type()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Leave the field's type as it is; the mark itself is not a type."""
        if source is cls:
            raise _no_type()
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Mark the field in its event's JSON schema, by which every reader redacts."""
        return handler(core) | {SENSITIVE: True}


def _no_type() -> DeclarationError:
    return DeclarationError("Sensitive", "it is a mark, not a type", "Write `Annotated[str, Sensitive]`")


#: A reason is for people, and each event of the compensation path carries it: at most so many characters.
_LONGEST_REASON = 1000


def bounded(reason: str) -> str:
    """Return a reason without NUL, which PostgreSQL stores in no text, and cut to the longest that is passed on."""
    return reason.replace("\0", "")[:_LONGEST_REASON]


#: Why a step refused or was undone.
Reason = Annotated[str, AfterValidator(bounded)]


class Event(BaseModel):
    """Something that happened, published to the services that consume it.

    Subclasses name their owner: `class OrderCreated(Event, owner="order")`. The class name is the event's
    name on the wire. Fields of a newer producer are ignored, missing ones are an error.

    - `version`: raised with every incompatible change; a participant accepts only the version that it declares.
    - `optional`: the event needs no consumer. Other events that no queue is bound to are kept and retried.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    __owner__: ClassVar[str] = ""
    __version__: ClassVar[int] = 1
    __optional__: ClassVar[bool] = False
    __starts__: ClassVar[tuple[Saga, ...]] = ()

    def __init_subclass__(cls, *, owner: str = "", version: int = 1, optional: bool = False, **kwargs: Any) -> None:
        try:
            super().__init_subclass__(**kwargs)
        except TypeError as error:
            cure = "Use owner=, version=, optional= and Pydantic's own settings"
            where = f"{cls.__module__}.{cls.__name__}"
            raise DeclarationError(where, f"it has an unknown class keyword {', '.join(kwargs)}", cure) from error
        _check_names(cls, owner, version)
        cls.__owner__ = owner or cls.__owner__
        cls.__version__ = version
        cls.__optional__ = optional


def _check_names(event_type: type[Event], owner: str, version: int) -> None:
    """Check the event's owner, name and version; the control messages' owner and names are reserved.

    Raises:
        DeclarationError: one of them is reserved, or has another form than a routing key needs.
    """
    where = f"{event_type.__module__}.{event_type.__name__}"
    if owner and not (isinstance(owner, str) and PLAIN_WORD.fullmatch(owner)):
        cure = "Use up to 64 ASCII letters, digits, `_` and `-`: it is the first part of the event's routing key"
        raise DeclarationError(where, f"its owner {owner!r} is not a plain word", cure)
    if not (type(version) is int and version > 0):
        raise DeclarationError(where, f"its version {version!r} is not a whole number from 1", "Count from 1")
    if event_type.__module__ != __name__ and (owner == "saga" or event_type.__name__ in CONTROL_NAMES):
        raise DeclarationError(where, "a control message has its owner or its name", "Rename it")


@cache
def routing_key(event_type: type[Event]) -> str:
    """Return `<owner>.<EventName>`, so that a broker can grant each service only its own keys."""
    return f"{event_type.__owner__}.{event_type.__name__}"


def documented_example(event_type: type[Event]) -> dict[str, Any]:
    """Return the first example in the event's own schema, or an empty dict."""
    return next(iter(documented_examples(event_type)), {})


def documented_examples(event_type: type[Event]) -> list[dict[str, Any]]:
    """Return the examples in the event's own schema."""
    extra = event_type.model_config.get("json_schema_extra")
    examples = extra.get("examples") if isinstance(extra, dict) else None
    return [dict(each) for each in examples if isinstance(each, dict)] if isinstance(examples, list) else []


class Refusal(Event):
    """A step's refusal: the business outcome that starts the compensation path. It is returned, never raised."""

    reason: Reason


class Answer(Event):
    """What a person, or a system without the toolkit, decides: no step emits it; a step waits for it in a slot.

        class Approved(Answer, owner="officer"): loan_id: SagaId

    The saga that waits is the one whose id the answer carries.
    """


class SagaEnded(Event, owner="saga"):
    """Control message: these sagas have completed or failed. One message covers all that ended in a batch."""

    saga_type: str
    completed: tuple[SagaId, ...] = Field((), max_length=1000)  # no batch is larger, and one statement covers them all
    failed: tuple[SagaId, ...] = Field((), max_length=1000)


class AbortRequested(Event, owner="saga"):
    """Control message: each service refuses its steps of this saga that are not done yet."""

    saga_type: str
    saga_id: SagaId
    reason: Reason


class EndRequested(Event, owner="saga", optional=True):
    """Control message: a service has missed this saga's end; the service that ended it publishes `SagaEnded` again."""

    saga_type: str
    saga_id: SagaId


class SagaWaits(Event, owner="saga", optional=True):
    """Control message: a step has an open question, so the saga is not overdue before `until`.

    Once the question is decided, it comes again with that moment.
    """

    saga_type: str
    saga_id: SagaId
    step: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    until: AwareDatetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """A business transaction across services: the event that starts it, and the two that end it.

    - `id_field`: the field of the events that holds the saga's id, such as `order_id`.
    - `starts_with`: the event that any client may send to start one.
    - `completes_with`, `fails_with`: the events that end it, each as the success of a step.
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
                "its name is not a plain word, and it is half of each saga's identity",
                "Use up to 64 ASCII letters, digits, `.`, `_` and `-`",
            )
        known = sagas_started_by(self.starts_with)
        if self not in known and isinstance(self.starts_with, type):
            self.starts_with.__starts__ = (*known, self)

    def build(self, event_type: type[Event], *, saga_id: str, reason: str) -> Event:
        """Return an event built from the saga's id and the reason alone, for a step that was never done."""
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


def sagas_started_by(event_type: type[Event]) -> tuple[Saga, ...]:
    """Return the declared sagas that such an event starts; a subclass of a starting event starts none by that."""
    found: tuple[Saga, ...] = vars(event_type).get("__starts__", ()) if isinstance(event_type, type) else ()
    return found


def is_saga_id(value: str) -> bool:
    """Whether this has the form of a saga's id."""
    try:
        SAGA_ID.validate_python(value)
    except ValidationError:
        return False
    return True
