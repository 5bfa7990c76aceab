"""What the inventory keeps: the stock, and what each order has reserved of it.

For every sku, `on_hand + reserved` never changes, and neither is ever below zero.
"""

import json
from pathlib import Path

from sqlalchemy import CheckConstraint, MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship, SQLModel

from toolkit.ids import new_id

metadata = MetaData()

#: The goods that the shop begins with.
STOCK_FILE = Path(__file__).with_name("stock.json")


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service alone, so that several services can live in one process."""


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
        """Whether so many can be sold."""
        return quantity <= self.on_hand

    def reserve(self, quantity: int) -> None:
        """Promise so many to an order."""
        self.on_hand -= quantity
        self.reserved += quantity

    def release(self, quantity: int) -> None:
        """Take back the promise of so many."""
        self.on_hand += quantity
        self.reserved -= quantity


class Reservation(Base, table=True):
    """What one order has reserved, until it is released; it stays reserved when the order is fulfilled."""

    order_id: str = Field(primary_key=True)
    reservation_id: str = Field(default_factory=new_id, unique=True)
    is_released: bool = False
    lines: list["ReservationLine"] = Relationship(sa_relationship_kwargs={"lazy": "selectin"})


class ReservationLine(Base, table=True):
    """So many of one sku, for one order."""

    __tablename__ = "reservation_line"

    order_id: str = Field(primary_key=True, foreign_key="reservation.order_id")
    sku: str = Field(primary_key=True, foreign_key="stock.sku")
    quantity: int


async def seed_stock(session: AsyncSession) -> None:
    """Add the goods of `stock.json` that are not there yet; replicas may do so at once."""
    goods = json.loads(STOCK_FILE.read_text())
    connection = await session.connection()
    # In the order of the skus: two replicas that insert the same rows crosswise would wait for each other.
    await connection.execute(_ADD_UNLESS_THERE, sorted(goods, key=lambda each: str(each["sku"])))


#: Text, because SQLite and PostgreSQL share these words but not SQLAlchemy's construct for them.
_ADD_UNLESS_THERE = text(
    "INSERT INTO stock (sku, on_hand, reserved, unit_price) VALUES (:sku, :on_hand, 0, :unit_price)"
    " ON CONFLICT (sku) DO NOTHING"
)
