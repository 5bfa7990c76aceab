"""Declare a coordinator: the steps of a saga, in the order in which it asks for them.

The steps themselves are other services' and stay as they are: whether they listen to events or are asked is a word of
their deployment, SAGA_ASKED_BY. A wrong declaration fails while its module is imported.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Protocol, TypeVar, final

from toolkit.declaration.event_rules import check_buildable, check_event, check_saga
from toolkit.declaration.events import PLAIN_WORD, Event, Saga
from toolkit.declaration.participant_rules import check_options
from toolkit.errors import DeclarationError
from toolkit.messaging.envelope import WireMessage, starting_message

E = TypeVar("E", bound=Event)


class Received:
    """The events that the coordinator has received in one saga: the starting one, and each step's success.

    received[PaymentProcessed].amount
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = {type(event): event for event in events}

    def __getitem__(self, kind: type[E]) -> E:
        """Return the event of this class.

        Raises:
            KeyError: it was not received.
        """
        event = self._events[kind]
        assert isinstance(event, kind)  # noqa: S101 -- for the type checker
        return event

    def __contains__(self, kind: type[Event]) -> bool:
        return kind in self._events


#: Builds the event that a command carries from what was received.
Build = Callable[[Received], Event]


@dataclass(frozen=True, slots=True)
class SagaStep:
    """A step of another service, by its name there.

    - `action`: builds the event that the step takes; by default it takes the success of the step before.
    - `compensation`: builds the event that its compensation takes; by default its service builds it, from the saga's id
      and the reason.
    - `timeout`: counted from the moment at which the step is asked; past it the step is undone, whether it ran or not.
    """

    name: str
    action: Build | None = None
    compensation: Build | None = None
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        where = f"SagaStep {self.name!r}"
        if not (isinstance(self.name, str) and PLAIN_WORD.fullmatch(self.name)):
            raise DeclarationError(where, "its name is not a plain word", "Name the step's function in its service")
        for role, build in (("action", self.action), ("compensation", self.compensation)):
            if build is not None and not callable(build):
                cure = f"Write `{role}=lambda received: AnEvent(...)`, or leave it out"
                raise DeclarationError(where, f"its {role} is not a function of what was received", cure)
        check_options(where, timeout=self.timeout, retry=None, external=None)


class Parallel:
    """Steps that are asked at once; the next ones are asked when all of these are done.

    Parallel(SagaStep("book_room"), SagaStep("book_flight"))
    """

    def __init__(self, *steps: SagaStep) -> None:
        if len(steps) < 2:
            raise DeclarationError("Parallel", "it has fewer than two steps", "List the step by itself")
        self.steps = steps


class Publisher(Protocol):
    """Publishes one message."""

    def publish(self, message: WireMessage) -> Awaitable[None]:
        """Publish the message; it is stored once this returns."""
        ...


class SagaOrchestrator(ABC):
    """The coordinator of one saga.

        class OrderFulfillment(SagaOrchestrator, saga=order_saga):
            failed_end = SagaStep("send_cancellation_notice")

            def define_steps(self, data: OrderCreated) -> list[SagaStep | Parallel]:
                return [SagaStep("reserve_inventory"), SagaStep("process_payment")]

    - `saga`: the saga that it coordinates.
    - `events`: the events that it may receive; by default those in the module of the saga's starting event.
    - `failed_end`: the step that announces the failure, asked once all is undone. Without it the coordinator emits the
      saga's `fails_with` itself.
    """

    saga: ClassVar[Saga]
    events: ClassVar[tuple[type[Event], ...]]
    name: ClassVar[str]
    failed_end: ClassVar[SagaStep | None] = None

    def __init_subclass__(
        cls, *, saga: Saga | None = None, events: Collection[type[Event]] | None = None, **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        if saga is None:
            if not hasattr(cls, "saga"):
                cure = f"Write `class {cls.__name__}(SagaOrchestrator, saga=the_saga)`"
                raise DeclarationError(_where(cls), "it names no saga", cure)
            return
        check_saga(saga)
        cls.saga = saga
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls.events = tuple(dict.fromkeys((saga.starts_with, *(_published_beside(saga) if events is None else events))))
        for event in cls.events:
            check_event(_where(cls), event, saga)
        if (last := cls.failed_end) and (last.timeout or last.compensation):
            fault = f"its failed_end {last.name} has a {'timeout' if last.timeout else 'compensation'}"
            cure = "Leave it out: nothing is left to undo when it is asked, and the saga can end by it alone"
            raise DeclarationError(_where(cls), fault, cure)
        if cls.failed_end is None:
            check_buildable(_where(cls), saga.fails_with, saga, "the coordinator emits it, having no failed_end")

    @abstractmethod
    def define_steps(self, data: Any) -> Sequence[SagaStep | Parallel]:
        """Return the steps of the saga that this event starts, in their order; each name is there once.

        It is a pure function of the event. The names and timeouts are stored when the saga starts, so a later release
        changes no saga under way; `action` and `compensation` are those of the release that runs.
        """

    @final
    def groups_for(self, data: Any) -> list[tuple[SagaStep, ...]]:
        """Return the steps of the saga that this event starts, in groups that are asked at once."""
        return groups_of(self.define_steps(data))

    @final
    @classmethod
    def asked_at_failure(cls) -> SagaStep | None:
        """Return `failed_end`; to pyright, a subclass's `failed_end = …` is none of a protocol's class variables."""
        return cls.failed_end

    def complete(self, received: Received) -> Event:
        """Return the event that completes the saga, where the last step's success is not that event already."""
        saga = self.saga
        return saga.build(saga.completes_with, saga_id=_id_of(received[saga.starts_with], saga), reason="")

    @final
    @classmethod
    async def start(cls, data: Event, publisher: Publisher) -> str:
        """Start a saga with this event, and return its id; the same event sent twice starts one saga.

        Raises:
            TypeError: the event is not the saga's starting event.
        """
        saga = cls.saga
        if type(data) is not saga.starts_with:
            raise TypeError(f"{cls.__name__} starts with {saga.starts_with.__name__}, not with {type(data).__name__}")
        saga_id = _id_of(data, saga)
        await publisher.publish(starting_message(saga.name, saga_id, data, now=datetime.now(UTC)))
        return saga_id


def groups_of(steps: Iterable[SagaStep | Parallel]) -> list[tuple[SagaStep, ...]]:
    """Return the steps in groups that are asked at once."""
    return [each.steps if isinstance(each, Parallel) else (each,) for each in steps]


def _published_beside(saga: Saga) -> Iterator[type[Event]]:
    """Yield the events in the module of the starting event: the saga's published language."""
    module: Mapping[str, object] = vars(sys.modules[saga.starts_with.__module__])
    kinds = [each for each in module.values() if isinstance(each, type) and issubclass(each, Event)]
    yield from (kind for kind in kinds if kind.__owner__ and kind.__owner__ != "saga")


def _id_of(data: Event, saga: Saga) -> str:
    return str(getattr(data, saga.id_field))


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
