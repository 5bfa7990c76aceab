"""Shipping's table: the shipment of each order, with its address.

An order has one shipment; its tracking number derives from the order's id, so that a repeated step gives the same one.
"""

import hashlib
from enum import StrEnum

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import AutoString, Field, SQLModel

metadata = MetaData()

#: Antarctica: no carrier delivers there.
COUNTRIES_NOT_SERVED = frozenset({"AQ"})


class ShipmentStatus(StrEnum):
    """The state of a shipment."""

    CREATED = "created"
    CANCELLED = "cancelled"


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class Shipment(Base, table=True):
    """The goods of one order on their way to its address."""

    order_id: str = Field(primary_key=True)
    tracking_number: str = Field(unique=True)
    status: ShipmentStatus = Field(default=ShipmentStatus.CREATED, sa_type=AutoString)
    name: str
    street: str
    city: str
    postal_code: str
    country: str

    def cancel(self) -> None:
        """Cancel the shipment."""
        self.status = ShipmentStatus.CANCELLED


def can_ship_to(country: str) -> bool:
    """Whether a carrier delivers to this country, ISO 3166-1 alpha-2."""
    return country not in COUNTRIES_NOT_SERVED


def tracking_number_for(order_id: str) -> str:
    """Return the order's tracking number, always the same."""
    return f"TRK-{hashlib.sha256(order_id.encode()).hexdigest()[:16].upper()}"
