"""A service's contract as data: its sagas, its steps and compensations, and its events with their schemas.

The contract is built from the declarations and served as JSON: a client of a running service needs none of its code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from toolkit.declaration.events import Answer, Event, Saga, documented_example, routing_key
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.plan_contract import PlanContract, plans_of
from toolkit.declaration.redaction import schema_of, sensitive_paths
from toolkit.declaration.service import Service
from toolkit.protocol.commands import Address, Verb

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may send more fields


class UpcasterContract(_Part):
    """What makes a newer version of an event from an older one; `json_schema`: that of the older version, if known."""

    from_version: int
    to_version: int
    json_schema: dict[str, Any] | None = None


class EventContract(_Part):
    """One event: its owner, its schema and an example.

    - `answer`: it comes from a person or a system outside; no service emits it.
    - `sensitive`: the dotted paths of its redacted fields.
    - `upcasters`: the steps between versions by which the service reads older ones; no service declares any yet.
    """

    name: str
    owner: str
    version: int
    routing_key: str
    optional: bool
    answer: bool = False
    description: str
    json_schema: dict[str, Any]
    sensitive: tuple[str, ...]
    example: dict[str, Any]
    upcasters: tuple[UpcasterContract, ...] = ()


class SlotContract(_Part):
    """An event parameter of a step or a compensation: its name, and the events of which one fills it."""

    name: str
    events: tuple[str, ...]


class HandlerContract(_Part):
    """A step, or a compensation `of` one. `timeout` and `remind` are in seconds; `attempts` counts the first one, too.

    It runs once each of its `slots` holds an event; `triggers` are the events of all slots. `original`: it reads the
    event that its step emitted; None in the contract of an older release.
    """

    name: str
    kind: Literal["step", "compensation"]
    of: str | None
    saga: str
    triggers: tuple[str, ...]
    slots: tuple[SlotContract, ...] = ()
    success: str
    refusals: tuple[str, ...]
    timeout: float | None
    remind: float | None = None
    attempts: int
    external: bool
    original: bool | None = None
    description: str

    @model_validator(mode="before")
    @classmethod
    def _with_one_slot(cls, facts: Any) -> Any:
        """Fill in the slot of a service without joins, such as one of an older release: all triggers fill it."""
        if isinstance(facts, dict) and not facts.get("slots"):
            return facts | {"slots": ({"name": "event", "events": facts.get("triggers", ())},)}
        return facts

    @property
    def is_join(self) -> bool:
        """Whether it runs on several events, one for each slot."""
        return len(self.slots) > 1

    @property
    def emits(self) -> tuple[str, ...]:
        """All events that it may emit, the success first."""
        return (self.success, *self.refusals)


class SagaContract(_Part):
    """A saga: the field that holds its id, the event that starts it, and the two that end it."""

    name: str
    id_field: str
    starts_with: str
    completes_with: str
    fails_with: str


class Contract(_Part):
    """One service's part in its sagas; `events` maps names to the events that it consumes or emits.

    - `starts`: the names of the events with which the application around it starts sagas.
    - `coordinates`: the types of the sagas that it coordinates: it asks other services' steps.
    - `received`: the names of the events that it consumes as their coordinator, whatever their steps emit.
    - `plans`: by saga type, the steps that it asks there, for each documented example of the starting event.
    - `asked_by`: by saga type, the coordinator whose commands alone run its steps.
    """

    service: str
    toolkit_version: str
    sagas: tuple[SagaContract, ...]
    handlers: tuple[HandlerContract, ...]
    events: dict[str, EventContract]
    starts: tuple[str, ...] = ()
    coordinates: tuple[str, ...] = ()
    received: tuple[str, ...] = ()
    plans: dict[str, tuple[PlanContract, ...]] = {}
    asked_by: dict[str, str] = {}

    @classmethod
    def of(
        cls,
        service: Service,
        *,
        timeouts: Mapping[str, timedelta] | None = None,
        reminders: Mapping[str, timedelta] | None = None,
        asked_by: Mapping[str, str] | None = None,
    ) -> Contract:
        """Return the contract that a service declares; `timeouts` and `reminders` override the declared ones.

        `asked_by` names coordinators as SAGA_ASKED_BY does.
        """
        starting = {saga.starts_with.__name__: saga.starts_with for saga in service.starts}
        consumed, emitted = (sorted(each, key=routing_key) for each in (service.consumed(), service.emitted().values()))
        used = {event.__name__: event for event in (*consumed, *emitted)} | starting
        return cls(
            service=service.name,
            toolkit_version=version("saga-toolkit"),
            sagas=tuple(_saga(saga) for saga in service.sagas),
            handlers=tuple(_handler(each, timeouts or {}, reminders or {}) for each in service.handlers),
            events={name: event_contract(event) for name, event in used.items()},
            starts=tuple(starting),
            coordinates=tuple(sorted(service.coordinated)),
            received=tuple(sorted({event.__name__ for each in service.orchestrators for event in each.events})),
            plans={
                each.saga.name: plans_of(each, service=service.name, timeouts=timeouts or {})
                for each in service.orchestrators
            },
            asked_by=coordinators_of(service, asked_by or {}),
        )

    @field_validator("plans", mode="before")
    @classmethod
    def _listed(cls, plans: Any) -> Any:
        """List the plan of a service of an older release, which has one for the first example alone."""
        each = plans.items() if isinstance(plans, dict) else ()
        return {saga: (plan,) if isinstance(plan, dict) else plan for saga, plan in each}

    @property
    def ends_sagas(self) -> bool:
        """Whether it coordinates a saga, or any of its steps ends one: only such a service may publish `SagaEnded`."""
        if self.coordinates:
            return True
        ends = {end for saga in self.sagas for end in (saga.completes_with, saga.fails_with)}
        return not ends.isdisjoint(_emitted_events(self))

    def consumed(self) -> list[EventContract]:
        """Return the events that the service consumes."""
        return [self.events[name] for name in dict.fromkeys((*_triggers(self), *self.received))]

    def bound_keys(self) -> list[str]:
        """Return the routing keys that its queue is bound to, beside those of the control messages."""
        asked = [each for each in self.handlers if each.saga in self.asked_by]
        listening = [name for each in self.handlers if each not in asked for name in each.triggers]
        keys = [self.events[name].routing_key for name in dict.fromkeys((*listening, *self.received))]
        steps = [(each.name, self.asked_by[each.saga]) for each in asked if each.kind == "step"]
        return [*keys, *(Address(asker, verb, name).routing_key for name, asker in steps for verb in Verb)]

    def emitted(self) -> list[EventContract]:
        """Return the events that the service, or the application around it, may emit."""
        return [self.events[name] for name in dict.fromkeys((*_emitted_events(self), *self.starts))]


def contract_of(service: Service, settings: Settings) -> Contract:
    """Return the contract of a service that runs with these settings."""
    return Contract.of(
        service, timeouts=settings.step_timeouts, reminders=settings.step_reminders, asked_by=settings.asked_by
    )


def coordinators_of(service: Service, asked_by: Mapping[str, str]) -> dict[str, str]:
    """Return the coordinator of each saga in which a coordinator asks the service's steps."""
    sagas = {participant.saga.name for participant in service.participants}
    found = {saga: asked_by.get(saga, asked_by.get("*")) for saga in sorted(sagas)}
    return {saga: coordinator for saga, coordinator in found.items() if coordinator}


def event_contract(event_type: type[Event]) -> EventContract:
    """Return the contract of one event."""
    schema = dict(schema_of(event_type))
    return EventContract(
        name=event_type.__name__,
        owner=event_type.__owner__,
        version=event_type.__version__,
        routing_key=routing_key(event_type),
        optional=event_type.__optional__,
        answer=issubclass(event_type, Answer),
        description=inspect.cleandoc(event_type.__dict__.get("__doc__") or ""),
        json_schema=schema,
        sensitive=sensitive_paths(schema),
        example=documented_example(event_type),
    )


def _saga(saga: Saga) -> SagaContract:
    return SagaContract(
        name=saga.name,
        id_field=saga.id_field,
        starts_with=saga.starts_with.__name__,
        completes_with=saga.completes_with.__name__,
        fails_with=saga.fails_with.__name__,
    )


def _handler(
    handler: Step | Compensation, timeouts: Mapping[str, timedelta], reminders: Mapping[str, timedelta]
) -> HandlerContract:
    is_step = isinstance(handler, Step)
    step = handler if isinstance(handler, Step) else handler.of
    timeout = timeouts.get(step.name, step.timeout) if is_step else None
    remind = reminders.get(step.name, step.remind) if is_step and step.remind else None
    return HandlerContract(
        name=handler.name,
        kind="step" if is_step else "compensation",
        of=None if is_step else step.name,
        saga=step.saga.name,
        triggers=tuple(event.__name__ for event in handler.triggers),
        slots=tuple(
            SlotContract(name=name, events=tuple(event.__name__ for event in events))
            for name, events in handler.slots.items()
        ),
        success=(handler.success if isinstance(handler, Step) else handler.emits).__name__,
        refusals=tuple(event.__name__ for event in handler.refusals) if isinstance(handler, Step) else (),
        timeout=timeout.total_seconds() if timeout else None,
        remind=remind.total_seconds() if remind else None,
        attempts=handler.retry.attempts,
        external=step.external,
        original=handler.signature.original is not None,
        description=inspect.cleandoc(handler.function.__doc__ or ""),
    )


def _triggers(contract: Contract) -> Iterator[str]:
    return (name for handler in contract.handlers for name in handler.triggers)


def _emitted_events(contract: Contract) -> Iterator[str]:
    return (name for handler in contract.handlers for name in handler.emits)
