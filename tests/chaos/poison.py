"""Poison: messages that fail by themselves, and must not affect any other.

A misbehaving step fails its own saga. An unreadable message, or one with an invalid saga id, becomes a dead letter of
the first service that receives it. A message that kills its process finally has one of both ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.events import OrderCreated
from tests.chaos.plan import Fault
from tests.chaos.shop.dares import DareOffered, Misbehaviour
from tests.chaos.tap import COPY
from toolkit.declaration.events import documented_example, routing_key
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage

_MISBEHAVIOURS = {
    Fault.CANCELLED_ITSELF: Misbehaviour.CANCELLED,
    Fault.CANCELLED_OUTSIDE: Misbehaviour.CANCELLED_OUTSIDE,
    Fault.ENDED_ITS_SESSION: Misbehaviour.TERMINATED,
    Fault.EMITTED_LARGE: Misbehaviour.LARGE,
    Fault.EMITTED_UNLIKE: Misbehaviour.UNLIKE,
    Fault.EMITTED_STRANGE: Misbehaviour.STRANGE,
    Fault.KILLED_ITSELF: Misbehaviour.KILLING,
}
#: An invalid saga id.
_BAD_ID = "ORD/2024/001"


@dataclass(frozen=True, slots=True)
class Poison:
    """One message, with its expected end: its saga fails, or it becomes a dead letter, or either."""

    message: WireMessage
    dare_id: str | None = None
    may_be_dead_letter: bool = True


def poison_of(fault: Fault) -> Poison:
    """Return a new message of this kind."""
    if fault in _MISBEHAVIOURS:
        dare_id = f"dare-{new_id()[-12:]}"
        offered = DareOffered(dare_id=dare_id, misbehaviour=_MISBEHAVIOURS[fault])
        is_killing = fault is Fault.KILLED_ITSELF
        message = _message(offered.model_dump_json().encode(), DareOffered)
        return Poison(message, dare_id, may_be_dead_letter=is_killing)
    if fault is Fault.BAD_ID:
        order = OrderCreated.model_construct(**documented_example(OrderCreated) | {"order_id": _BAD_ID})
        return Poison(_message(order.model_dump_json(warnings=False).encode(), OrderCreated))
    return Poison(_message(b"{", OrderCreated))


def _message(body: bytes, event: type[OrderCreated | DareOffered]) -> WireMessage:
    """Return a message that the tap does not double: its process has to survive one message."""
    return WireMessage(body, routing_key(event), message_id=new_id(), type=event.__name__, headers={COPY: 1})
