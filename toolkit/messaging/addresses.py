"""The addresses of coordinators' commands: in the messages that carry them, and among the keys that a service binds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.declaration.contract import coordinators_of
from toolkit.declaration.events import routing_key
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.errors import UnreadableError
from toolkit.messaging.envelope import OUTCOME, REPLY, WireMessage
from toolkit.messaging.header_values import text_of
from toolkit.protocol.commands import Address, Outcome, Reply, Verb, address_in


def consumed_keys(service: Service, asked_by: Mapping[str, str]) -> set[str]:
    """Return the routing keys that a service's queue is bound to, beside those of the control messages.

    The steps of sagas with a coordinator are bound to its commands alone.
    """
    coordinators = coordinators_of(service, asked_by)
    handlers: list[Step | Compensation] = [*service.steps, *service.compensations]
    listening = [each for each in handlers if _step(each).saga.name not in coordinators]
    events = {event for each in listening for event in each.triggers}
    events |= {event for each in service.orchestrators for event in each.events}
    asked = [(step.name, coordinators[step.saga.name]) for step in service.steps if step.saga.name in coordinators]
    commands = {Address(asker, verb, name).routing_key for name, asker in asked for verb in Verb}
    return {routing_key(event) for event in events} | commands


def _step(handler: Step | Compensation) -> Step:
    return handler if isinstance(handler, Step) else handler.of


def address_of(wire: WireMessage) -> Address | None:
    """Return the address of a command; None of any other message.

    Raises:
        UnreadableError: its routing key is not that of the step in its header.
    """
    headers = wire.headers
    for verb in Verb:
        if verb.value in headers:
            address, step = address_in(wire.routing_key), text_of(headers, verb.value)
            if address is None or (address.verb, address.step) != (verb, step):
                detail = f"it is to {verb} {step}, under the key {wire.routing_key!r}: publish it under the step's own"
                raise UnreadableError("wrong routing key", detail)
            return address
    return None


def reply_of(headers: Mapping[str, Any]) -> Reply | None:
    """Return the reply to a command; None in any other message.

    Raises:
        UnreadableError: its outcome is none.
    """
    if REPLY not in headers or (step := text_of(headers, REPLY)) is None:
        return None
    outcome = text_of(headers, OUTCOME)
    if outcome not in set(Outcome):
        known = ", ".join(Outcome)
        raise UnreadableError("broken header", f"{OUTCOME} is {outcome!r}, not one of {known}")
    return Reply(step, Outcome(outcome))
