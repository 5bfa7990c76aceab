"""Declarations made from a drawing of a saga's steps, each in a service of its own; its functions write nothing.

The checks of shapes that are wrong on purpose need many sagas, and each a real declaration.
"""

from __future__ import annotations

import inspect
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any

from pydantic import ConfigDict

from tests.choreography_model import BAD, GOOD, START, Slots, Step, Steps
from toolkit import Answer, Event, Participant, Refusal, Saga, SagaId, Service


def services_of(steps: Steps, people: tuple[str, ...] = (), *, others: str = "client") -> list[Service]:
    """Return a service for each step; events that no step emits are others': the first one, and those of people."""
    owners = {event: name for name, each in steps.items() for event in (each.ok, each.no, each.undone) if event}
    events = {event: _event(event, owners.get(event, others), steps, people) for event in _named(steps)}
    saga = Saga(
        name="deal", id_field="deal_id", starts_with=events[START], completes_with=events[GOOD], fails_with=events[BAD]
    )
    return [Service(name=name, participants=[_participant(name, each, saga, events)]) for name, each in steps.items()]


def _named(steps: Steps) -> set[str]:
    emitted = {event for each in steps.values() for event in (each.ok, each.no, each.undone) if event}
    return _taken(steps) | emitted | {START, GOOD, BAD}


def _taken(steps: Steps) -> set[str]:
    return {event for each in steps.values() for slot in (*each.on, *each.undo_on) for event in slot}


def _event(name: str, owner: str, steps: Steps, people: tuple[str, ...]) -> type[Event]:
    is_refusal = any(each.no == name for each in steps.values())
    base = Answer if name in people else Refusal if is_refusal else Event
    example = ConfigDict(json_schema_extra={"examples": [{"deal_id": "deal-1"}]})
    body: dict[str, Any] = {"__annotations__": {"deal_id": SagaId}, "__module__": __name__, "model_config": example}
    created: type[Event] = type(name, (base,), body, owner=owner, optional=name not in _taken(steps))
    return created


def _participant(name: str, each: Step, saga: Saga, events: dict[str, type[Event]]) -> Participant:
    participant = Participant(name, saga=saga)
    emitted = [events[event] for event in (each.ok, each.no) if event]
    function = _function(name, each.on, emitted, events)
    timeout = timedelta(minutes=1) if each.has_deadline else None
    participant.step(timeout=timeout, external=each.is_external)(function)
    if each.undo_on:
        participant.compensation(of=function)(_function(f"undo_{name}", each.undo_on, [events[each.undone]], events))
    return participant


def _function(name: str, slots: Slots, emits: list[type[Event]], events: dict[str, type[Event]]) -> Any:
    """Return a function with a parameter for each slot, which returns the first of its events."""

    async def function(**taken: Event) -> Event:
        deal_id = next(iter(taken.values())).model_dump()["deal_id"]
        return emits[0].model_validate({"deal_id": deal_id})

    types = {
        f"slot_{index}": reduce(or_, [events[event] for event in sorted(slot)]) for index, slot in enumerate(slots)
    }
    named = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in types]
    function.__name__ = function.__qualname__ = name
    function.__annotations__ = {**types, "return": reduce(or_, emits)}
    function.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]  # a function may have one
    return function
