"""What payment keeps: how much was taken for each order, and how much of it given back.

No more is ever given back than was taken. Amounts are in minor units.
"""

from sqlalchemy import BigInteger, CheckConstraint, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

metadata = MetaData()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service alone, so that several services can live in one process."""


class Payment(Base, table=True):
    """The money of one order: `captured` was taken from the customer, `refunded` given back."""

    __table_args__ = (
        CheckConstraint("refunded BETWEEN 0 AND captured", name="payment_refunds_at_most_what_was_captured"),
    )

    order_id: str = Field(primary_key=True)
    captured: int = Field(sa_type=BigInteger)
    refunded: int = Field(default=0, sa_type=BigInteger)

    @property
    def kept(self) -> int:
        """What the shop has of it."""
        return self.captured - self.refunded

    def refund(self) -> None:
        """Note that all of it was given back."""
        self.refunded = self.captured
