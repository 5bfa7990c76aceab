"""The approvals desk's table: what was approved; who approved it is in the saga log."""

from sqlalchemy import BigInteger, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

metadata = MetaData()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class Approval(Base, table=True):
    """One approved purchase, with its price in minor units and the approver's note."""

    purchase_id: str = Field(primary_key=True)
    price: int = Field(sa_type=BigInteger)
    note: str = ""
