"""A service's own rows in SQLModel, as the loops keep them that write a row a step through SQLAlchemy."""

from __future__ import annotations

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

tables = MetaData()


class Base(SQLModel, registry=registry(metadata=tables)):
    """The service's own table."""


class Effect(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    order_id: str
    amount: int
