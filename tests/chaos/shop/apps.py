"""The four services with orders, gifts and dares, for example `saga run tests.chaos.shop.apps:inventory`."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import MetaData

from services.inventory.app import app as plain_inventory
from services.notification.app import app as plain_notification
from services.payment.app import app as plain_payment
from services.shipping.app import app as plain_shipping
from tests.chaos.shop.dares import dare_tables, doing, forgetting, taking
from tests.chaos.shop.gifts import announcing, gift_tables, packing, sending
from tests.chaos.shop.patience import patient
from toolkit import Participant, Service


def with_more(service: Service, *more: Participant, tables: tuple[MetaData, ...] = ()) -> Service:
    """Return the service with more attempts, and with these participants in other sagas."""
    own = [patient(each) for each in service.participants]
    return replace(service, participants=[*own, *more], tables=_together(service.tables, *tables))


def _together(*several: MetaData | None) -> MetaData:
    """Return all tables as those of one service, without changing the originals."""
    together = MetaData()
    for table in (table for each in several if each for table in each.sorted_tables):
        table.to_metadata(together)
    return together


inventory = with_more(plain_inventory, packing, taking, tables=(gift_tables, dare_tables))
payment = with_more(plain_payment)
shipping = with_more(plain_shipping, sending, doing)
notification = with_more(plain_notification, announcing, forgetting)

SERVICES = (inventory, payment, shipping, notification)
