"""The result of a check after rows of one service's database were changed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from toolkit.client.account_checks import AccountCheck, CheckResult
from toolkit.persistence.database import Database


async def checked_after(
    fault: str, check: AccountCheck, databases: Mapping[str, str], service: str, states: Any
) -> CheckResult:
    """Execute the statement in the service's database, and return what the check finds of these sagas then."""
    database = Database(databases[service])
    async with database.engine.begin() as connection:
        await connection.execute(text(fault))
    await database.close()
    return await check(databases, states)
