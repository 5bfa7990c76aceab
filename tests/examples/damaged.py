"""Damage to one service's database by hand, and the result of a check after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from toolkit.client.account_checks import AccountCheck, CheckResult
from toolkit.persistence.database import Database


async def damage(url: str, fault: str) -> None:
    """Execute the statement in the database at this URL."""
    database = Database(url)
    async with database.engine.begin() as connection:
        await connection.execute(text(fault))
    await database.close()


async def checked_after(
    fault: str, check: AccountCheck, databases: Mapping[str, str], service: str, states: Any
) -> CheckResult:
    """Execute the statement in the service's database, and return what the check finds of these sagas then."""
    await damage(databases[service], fault)
    return await check(databases, states)
