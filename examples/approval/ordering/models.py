"""Ordering's table: the order of each purchase."""

from sqlalchemy import BigInteger, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from toolkit.ids import new_id

metadata = MetaData()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class PurchaseOrder(Base, table=True):
    """The order of one purchase, at its price in minor units."""

    __tablename__ = "purchase_order"

    purchase_id: str = Field(primary_key=True)
    order_number: str = Field(default_factory=new_id, unique=True)
    item: str
    price: int = Field(sa_type=BigInteger)
