"""The four services with the steps of all sagas, for example `saga run tests.chaos.shop.apps:inventory`.

Beside orders, gifts and dares they run the steps of the examples' services, so that steps of every shape of saga share
a process, a queue and a batch. `fulfillment` coordinates the orders where the settings say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import MetaData
from sqlmodel.ext.asyncio.session import AsyncSession

from examples.approval.approvals.app import app as approvals
from examples.approval.finance.app import app as finance
from examples.approval.ordering.app import app as ordering
from examples.orchestrated.fulfillment.app import app as fulfillment
from examples.transfer.clearing.app import app as clearing
from examples.transfer.receiver_bank.app import app as receiver_bank
from examples.transfer.sender_bank.app import app as sender_bank
from examples.travel.agency.app import app as agency
from examples.travel.airline.app import app as airline
from examples.travel.car_rental.app import app as car_rental
from examples.travel.hotel.app import app as hotel
from services.inventory.app import app as plain_inventory
from services.notification.app import app as plain_notification
from services.payment.app import app as plain_payment
from services.shipping.app import app as plain_shipping
from tests.chaos.shop.dares import dare_tables, doing, forgetting, taking
from tests.chaos.shop.gifts import announcing, gift_tables, packing, sending
from tests.chaos.shop.patience import patient
from toolkit import Participant, Service
from toolkit.declaration.service import Seed

#: By service, those of the examples whose steps it runs. No two of them have a table of the same name.
HOSTED = {
    "inventory": (sender_bank, hotel),
    "payment": (clearing, airline, finance),
    "shipping": (receiver_bank, car_rental, ordering),
    "notification": (agency, approvals),
}


def with_more(service: Service, *more: Participant, tables: tuple[MetaData, ...] = ()) -> Service:
    """Return the service with more attempts, with these participants, and with the steps of those that it hosts."""
    hosted = HOSTED[service.name]
    own = [patient(each) for one in (service, *hosted) for each in one.participants]
    return replace(
        service,
        participants=[*own, *more],
        tables=_together(service.tables, *tables, *(each.tables for each in hosted)),
        provides={kind: provider for one in (service, *hosted) for kind, provider in one.provides.items()},
        seed=_seed_all((service, *hosted)),
    )


def _together(*several: MetaData | None) -> MetaData:
    """Return all tables as those of one service, without changing the originals."""
    together = MetaData()
    for table in (table for each in several if each for table in each.sorted_tables):
        table.to_metadata(together)
    return together


def _seed_all(services: Sequence[Service]) -> Seed:
    async def seed(session: AsyncSession) -> None:
        for each in services:
            if each.seed:
                await each.seed(session)

    return seed


inventory = with_more(plain_inventory, packing, taking, tables=(gift_tables, dare_tables))
payment = with_more(plain_payment)
shipping = with_more(plain_shipping, sending, doing)
notification = with_more(plain_notification, announcing, forgetting)

SERVICES = (inventory, payment, shipping, notification)

__all__ = ["HOSTED", "SERVICES", "fulfillment", "inventory", "notification", "payment", "shipping", "with_more"]
