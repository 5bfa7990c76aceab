"""A second saga through the same services, under the same ids as the orders: the gift that comes with one.

Its ends cross those of the orders: a completed gift must confirm no step of its order, and vice versa.
"""

from __future__ import annotations

from sqlalchemy import Column, MetaData, String, Table, delete, insert
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.chaos.shop.patience import PATIENT
from toolkit import Event, Participant, Refusal, Saga, SagaId

#: The gifts that lie packed in the inventory, or are on their way.
gift_tables = MetaData()
packed_gifts = Table("packed_gift", gift_tables, Column("order_id", String, primary_key=True))


class GiftOrdered(Event, owner="gift"):
    """An order comes with a gift, which `is_wanted` or sent back."""

    order_id: SagaId
    is_wanted: bool = True


class GiftPacked(Event, owner="inventory"):
    """The gift is ready."""

    order_id: SagaId
    is_wanted: bool


class GiftNotPacked(Refusal, owner="inventory"):
    """There is no such gift."""

    order_id: SagaId


class GiftUnpacked(Event, owner="inventory"):
    """The gift is back in its place."""

    order_id: SagaId
    reason: str = ""


class GiftSent(Event, owner="shipping"):
    """The gift is on its way."""

    order_id: SagaId
    is_wanted: bool


class GiftNotSent(Refusal, owner="shipping"):
    """The gift can't be sent."""

    order_id: SagaId


class GiftCalledBack(Event, owner="shipping"):
    """The gift comes back."""

    order_id: SagaId
    reason: str = ""


class GiftArrived(Event, owner="notification", optional=True):
    """The gift is in its customer's hands: the saga ended well."""

    order_id: SagaId


class GiftUnwanted(Refusal, owner="notification"):
    """The customer wants no gift."""

    order_id: SagaId


class GiftFailed(Event, owner="notification", optional=True):
    """The gift came to nothing: the saga ended failed."""

    order_id: SagaId


gift_saga = Saga(
    name="gift",
    id_field="order_id",
    starts_with=GiftOrdered,
    completes_with=GiftArrived,
    fails_with=GiftFailed,
)

packing = Participant("packing", saga=gift_saga, retry=PATIENT)
sending = Participant("sending", saga=gift_saga, retry=PATIENT)
announcing = Participant("announcing", saga=gift_saga, retry=PATIENT)


@packing.step()
async def pack_gift(event: GiftOrdered, session: AsyncSession) -> GiftPacked | GiftNotPacked:
    """Pack the gift."""
    await pack(event, session)
    return GiftPacked(order_id=event.order_id, is_wanted=event.is_wanted)


@packing.compensation(of=pack_gift)
async def unpack_gift(event: GiftNotSent | GiftCalledBack, session: AsyncSession) -> GiftUnpacked:
    """Put the gift back."""
    await unpack(event.order_id, session)
    return GiftUnpacked(order_id=event.order_id, reason=event.reason)


@sending.step(external=True)
async def send_gift(event: GiftPacked) -> GiftSent | GiftNotSent:
    """Send the gift; the carrier takes it at once."""
    return GiftSent(order_id=event.order_id, is_wanted=event.is_wanted)


@sending.compensation(of=send_gift)
async def call_gift_back(event: GiftUnwanted) -> GiftCalledBack:
    """Call the gift back; the carrier does."""
    return GiftCalledBack(order_id=event.order_id, reason=event.reason)


@announcing.step()
async def hand_gift_over(event: GiftSent) -> GiftArrived | GiftUnwanted:
    """Hand the gift over, if it is wanted."""
    if not event.is_wanted:
        return GiftUnwanted(order_id=event.order_id, reason="the customer wants no gift")
    return GiftArrived(order_id=event.order_id)


@announcing.step()
async def regret_gift(event: GiftNotPacked | GiftUnpacked) -> GiftFailed:
    """Note that the gift came to nothing."""
    return GiftFailed(order_id=event.order_id)


async def pack(event: GiftOrdered, session: AsyncSession) -> None:
    """Note that the gift is packed."""
    await (await session.connection()).execute(insert(packed_gifts).values(order_id=event.order_id))


async def unpack(order_id: str, session: AsyncSession) -> None:
    """Delete the packed gift, which has to exist."""
    this = packed_gifts.c.order_id == order_id
    done = await (await session.connection()).execute(delete(packed_gifts).where(this))
    assert done.rowcount == 1, f"{order_id} has no packed gift"
