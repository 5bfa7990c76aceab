"""What shipping keeps: the shipment of each order, and where it goes.

An order has one shipment; its tracking number follows from the order, so that a step run again gives the same.
"""

import hashlib
from enum import StrEnum

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import AutoString, Field, SQLModel

metadata = MetaData()

#: Antarctica: no carrier of ours goes there.
COUNTRIES_NOT_SERVED = frozenset({"AQ"})


class ShipmentStatus(StrEnum):
    """Whether the goods go out."""

    CREATED = "created"
    CANCELLED = "cancelled"


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service alone, so that several services can live in one process."""


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
        """Call the goods back."""
        self.status = ShipmentStatus.CANCELLED


def can_ship_to(country: str) -> bool:
    """Whether a carrier goes there; ISO 3166-1 alpha-2."""
    return country not in COUNTRIES_NOT_SERVED


def tracking_number_for(order_id: str) -> str:
    """Return the order's tracking number, always the same."""
    return f"TRK-{hashlib.sha256(order_id.encode()).hexdigest()[:16].upper()}"
