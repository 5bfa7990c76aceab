"""Other releases of the services: one that consumes an event more, one that renamed a step, one with a newer event.

They follow one another as the releases of any service, while sagas of the previous one are open.
"""

from __future__ import annotations

from dataclasses import replace

from sqlmodel.ext.asyncio.session import AsyncSession

from services.inventory.app import app as plain_inventory
from services.shipping.app import app as plain_shipping
from tests.chaos.shop.apps import shipping, with_more
from tests.chaos.shop.dares import dare_tables, doing, taking
from tests.chaos.shop.gifts import (
    GiftCalledBack,
    GiftNotPacked,
    GiftNotSent,
    GiftOrdered,
    GiftPacked,
    GiftSent,
    GiftUnpacked,
    GiftUnwanted,
    gift_saga,
    gift_tables,
    pack,
    unpack,
)
from tests.chaos.shop.patience import PATIENT
from toolkit import Event, Participant, SagaId, Service

sending = Participant("sending", saga=gift_saga, retry=PATIENT)


@sending.step(external=True)
async def send_gift(event: GiftPacked) -> GiftSent | GiftNotSent:
    """Send the gift, as before."""
    return GiftSent(order_id=event.order_id, is_wanted=event.is_wanted)


@sending.compensation(of=send_gift)
async def call_gift_back(event: GiftUnwanted | GiftUnpacked) -> GiftCalledBack:
    """Call the gift back; once more when it is unpacked, which comes too late each time."""
    return GiftCalledBack(order_id=event.order_id, reason=event.reason)


#: The previous release: it consumes GiftUnpacked, too.
shipping_before = with_more(plain_shipping, sending, doing)


class NewGiftPacked(Event, owner="inventory", version=2):
    """The gift is ready, and has a ribbon."""

    order_id: SagaId
    is_wanted: bool
    ribbon: str


# Its name on the wire is that of the version before.
NewGiftPacked.__name__ = GiftPacked.__name__

packing = Participant("packing", saga=gift_saga, retry=PATIENT)


@packing.step()
async def pack_gift(event: GiftOrdered, session: AsyncSession) -> NewGiftPacked | GiftNotPacked:
    """Pack the gift, with a ribbon."""
    await pack(event, session)
    return NewGiftPacked(order_id=event.order_id, is_wanted=event.is_wanted, ribbon="red")


@packing.compensation(of=pack_gift)
async def unpack_gift(event: GiftNotSent | GiftCalledBack, session: AsyncSession) -> GiftUnpacked:
    """Put the gift back, as before."""
    await unpack(event.order_id, session)
    return GiftUnpacked(order_id=event.order_id, reason=event.reason)


#: The next release: its GiftPacked is version 2.
inventory_after = with_more(plain_inventory, packing, taking, tables=(gift_tables, dare_tables))


def renamed(service: Service, step: str, name: str) -> Service:
    """Return the service with a step under another name."""
    return replace(service, participants=[_renamed(each, step, name) for each in service.participants])


def _renamed(participant: Participant, step: str, name: str) -> Participant:
    copy = Participant(participant.name, saga=participant.saga)
    copy.steps = [replace(each, name=name if each.name == step else each.name) for each in participant.steps]
    of = dict(zip(participant.steps, copy.steps, strict=True))
    copy.compensations = [replace(each, of=of[each.of]) for each in participant.compensations]
    return copy


#: The release that renamed a step in spite of open sagas.
shipping_renamed = renamed(shipping, "create_shipment", "ship_order")
