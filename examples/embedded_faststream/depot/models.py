"""The depot's tables: the parcels that its application stores, and their shelves."""

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

metadata = MetaData()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of the depot's tables."""


class Parcel(Base, table=True):
    """A parcel that the sorting machine has seen; a subscriber of the application stores it."""

    id: str = Field(primary_key=True)
    street: str
    is_delivered: bool = False


class Shelf(Base, table=True):
    """The shelf of a parcel, until it is cleared."""

    parcel_id: str = Field(primary_key=True)
    is_cleared: bool = False
