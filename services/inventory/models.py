"""The inventory's tables: the stock, and each order's reservation.

For every sku, `on_hand + reserved` never changes, and neither is ever negative.
"""

import json
from pathlib import Path

from sqlalchemy import CheckConstraint, MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship, SQLModel

from toolkit.ids import new_id
from toolkit.persistence.schema import insert_into

metadata = MetaData()

#: The shop's initial stock.
STOCK_FILE = Path(__file__).with_name("stock.json")


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class Stock(Base, table=True):
    """One kind of goods; `on_hand` can be sold, `reserved` is promised to orders, prices are in minor units."""

    __table_args__ = (
        CheckConstraint("on_hand >= 0", name="stock_on_hand_is_not_negative"),
        CheckConstraint("reserved >= 0", name="stock_reserved_is_not_negative"),
    )

    sku: str = Field(primary_key=True)
    on_hand: int
    reserved: int = 0
    unit_price: int

    def can_reserve(self, quantity: int) -> bool:
        """Whether this quantity is on hand."""
        return quantity <= self.on_hand

    def reserve(self, quantity: int) -> None:
        """Move this quantity from the goods on hand to the reserved ones."""
        self.on_hand -= quantity
        self.reserved += quantity

    def release(self, quantity: int) -> None:
        """Move this quantity from the reserved goods to those on hand."""
        self.on_hand += quantity
        self.reserved -= quantity


class Reservation(Base, table=True):
    """One order's reserved goods, until they are released; a fulfilled order keeps its reservation."""

    order_id: str = Field(primary_key=True)
    reservation_id: str = Field(default_factory=new_id, unique=True)
    is_released: bool = False
    lines: list["ReservationLine"] = Relationship(sa_relationship_kwargs={"lazy": "selectin"})


class ReservationLine(Base, table=True):
    """The reserved quantity of one sku for one order."""

    __tablename__ = "reservation_line"

    order_id: str = Field(primary_key=True, foreign_key="reservation.order_id")
    sku: str = Field(primary_key=True, foreign_key="stock.sku")
    quantity: int


async def seed_stock(session: AsyncSession) -> None:
    """Insert the goods of `stock.json` that are missing; replicas may do so concurrently."""
    connection = await session.connection()
    # Sorted by sku: two replicas that insert the same rows in opposite orders would deadlock.
    goods = sorted(json.loads(STOCK_FILE.read_text()), key=lambda each: str(each["sku"]))
    new = [{**each, "reserved": 0} for each in goods]
    await connection.execute(insert_into(metadata.tables["stock"], connection).on_conflict_do_nothing(), new)
