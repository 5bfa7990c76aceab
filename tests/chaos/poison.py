"""Poison: messages that must come to nothing by themselves, and take nothing else with them.

A deed fails its own saga. What can't be read, and what is no saga's id, is a dead letter of the first service that it
comes to. A message that kills its process is either of these, once the broker has given it up.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.events import OrderCreated
from tests.chaos.plan import Fault
from tests.chaos.shop.dares import DareOffered, Deed
from tests.chaos.tap import COPY
from toolkit.declaration.events import documented_example, routing_key
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage

_DEEDS = {
    Fault.CANCELLED_ITSELF: Deed.CANCELLED,
    Fault.CANCELLED_OUTSIDE: Deed.CANCELLED_OUTSIDE,
    Fault.ENDED_ITS_SESSION: Deed.TERMINATED,
    Fault.EMITTED_LARGE: Deed.LARGE,
    Fault.EMITTED_UNLIKE: Deed.UNLIKE,
    Fault.EMITTED_STRANGE: Deed.STRANGE,
    Fault.KILLED_ITSELF: Deed.KILLING,
}
#: What no saga's id may hold.
_BAD_ID = "ORD/2024/001"


@dataclass(frozen=True, slots=True)
class Poison:
    """One message, with what has to come of it: its saga fails, or it is a dead letter, or either."""

    message: WireMessage
    dare_id: str | None = None
    may_be_letter: bool = True


def poison_of(fault: Fault) -> Poison:
    """Return a new message of this kind."""
    if fault in _DEEDS:
        dare_id = f"dare-{new_id()[-12:]}"
        offered = DareOffered(dare_id=dare_id, deed=_DEEDS[fault])
        is_killing = fault is Fault.KILLED_ITSELF
        message = _message(offered.model_dump_json().encode(), DareOffered)
        return Poison(message, dare_id, may_be_letter=is_killing)
    if fault is Fault.BAD_ID:
        order = OrderCreated.model_construct(**documented_example(OrderCreated) | {"order_id": _BAD_ID})
        return Poison(_message(order.model_dump_json(warnings=False).encode(), OrderCreated))
    return Poison(_message(b"{", OrderCreated))


def _message(body: bytes, event: type[OrderCreated | DareOffered]) -> WireMessage:
    """Return it as one that the tap does not double: one message is what its process must survive."""
    return WireMessage(body, routing_key(event), message_id=new_id(), type=event.__name__, headers={COPY: 1})
