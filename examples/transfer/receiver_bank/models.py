"""The tables of the receiver's bank: its accounts, and the credit of each transfer.

An account's balance less its credits is always its opening balance.
"""

import json
from pathlib import Path

from sqlalchemy import BigInteger, CheckConstraint, MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from toolkit.persistence.schema import insert_into

metadata = MetaData()

#: The accounts and their opening balances.
ACCOUNTS_FILE = Path(__file__).with_name("accounts.json")


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class Account(Base, table=True):
    """One customer's money in minor units; a closed account takes none."""

    __table_args__ = (CheckConstraint("balance >= 0", name="account_balance_is_not_negative"),)

    number: str = Field(primary_key=True)
    balance: int = Field(sa_type=BigInteger)
    is_closed: bool = False


class Credit(Base, table=True):
    """The money that one transfer brought to an account, for good."""

    transfer_id: str = Field(primary_key=True)
    account: str = Field(foreign_key="account.number")
    amount: int = Field(sa_type=BigInteger)


async def seed_accounts(session: AsyncSession) -> None:
    """Insert the accounts of `accounts.json` that are missing; replicas may do so concurrently."""
    connection = await session.connection()
    # Sorted by number: two replicas that insert the same rows in opposite orders would deadlock.
    accounts = sorted(json.loads(ACCOUNTS_FILE.read_text()), key=lambda each: str(each["number"]))
    await connection.execute(insert_into(metadata.tables["account"], connection).on_conflict_do_nothing(), accounts)
