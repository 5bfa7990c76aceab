"""Finance's tables: the departments' budgets, and the reservation of each purchase.

What a department has available and its reservations that are not released always add up to its budget.
"""

import json
from pathlib import Path

from sqlalchemy import BigInteger, CheckConstraint, MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from toolkit.persistence.schema import insert_into

metadata = MetaData()

#: The departments and their budgets.
BUDGETS_FILE = Path(__file__).with_name("budgets.json")


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class Department(Base, table=True):
    """What a department may still spend, in minor units."""

    __table_args__ = (CheckConstraint("available >= 0", name="department_available_is_not_negative"),)

    name: str = Field(primary_key=True)
    available: int = Field(sa_type=BigInteger)


class Reservation(Base, table=True):
    """The price of one purchase, until it is released; that of an ordered purchase is kept for good."""

    purchase_id: str = Field(primary_key=True)
    department: str = Field(foreign_key="department.name")
    amount: int = Field(sa_type=BigInteger)
    is_released: bool = False


async def seed_departments(session: AsyncSession) -> None:
    """Insert the departments of `budgets.json` that are missing; replicas may do so concurrently."""
    connection = await session.connection()
    # Sorted: two replicas that insert the same rows in opposite orders would deadlock.
    departments = sorted(json.loads(BUDGETS_FILE.read_text()), key=lambda each: str(each["name"]))
    new = insert_into(metadata.tables["department"], connection).on_conflict_do_nothing()
    await connection.execute(new, departments)
