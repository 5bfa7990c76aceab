"""What tests of faults share: messages, statements on the database, and conditions to wait for."""

from __future__ import annotations

from sqlalchemy import text

from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loans import BookWanted
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.database import Database


def wanted(number: int) -> WireMessage:
    return wire(BookWanted(loan_id=f"loan-{number}"))


async def is_now(claim: bool) -> bool:
    return claim


async def change(database: Database, *statements: str) -> None:
    async with database.engine.begin() as connection:
        for each in statements:
            await connection.execute(text(each))
