"""Payment's table: the captured and the refunded amount of each order, in minor units.

A refund never exceeds the captured amount.
"""

from sqlalchemy import BigInteger, CheckConstraint, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

metadata = MetaData()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class Payment(Base, table=True):
    """The payment of one order: `captured` was taken from the customer, `refunded` returned."""

    __table_args__ = (
        CheckConstraint("refunded BETWEEN 0 AND captured", name="payment_refunds_at_most_what_was_captured"),
    )

    order_id: str = Field(primary_key=True)
    captured: int = Field(sa_type=BigInteger)
    refunded: int = Field(default=0, sa_type=BigInteger)

    @property
    def kept(self) -> int:
        """The amount that the shop keeps."""
        return self.captured - self.refunded

    def refund(self) -> None:
        """Record that all of it was refunded."""
        self.refunded = self.captured
