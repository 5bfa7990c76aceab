"""Middleware runs around each step and compensation, inside its transaction."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import notes, states
from tests.example_sagas.loans import BookWanted, CardRefused, Clerk, library
from toolkit import Event, Middleware
from toolkit.persistence.database import Database

WANTED = BookWanted(loan_id="loan-1")


def branch_with(database: Database, clerk: Clerk, *middleware: Middleware, **facts: Any) -> Branch:
    service = replace(library(clerk, **facts), middleware=middleware)
    return Branch(service, database, resources={Clerk: clerk})


def recorded(name: str, calls: list[str]) -> Middleware:
    async def record(call_next: Any, step: Any, event: Event) -> Event:
        calls.append(f"{name} before {step.name} on {type(event).__name__}")
        emitted = await call_next()
        calls.append(f"{name} after {type(emitted).__name__}")
        return emitted

    return record


async def test_middleware_runs_in_order_around_the_step(database: Database, clerk: Clerk) -> None:
    calls: list[str] = []
    branch = branch_with(database, clerk, recorded("outer", calls), recorded("inner", calls))

    await branch.handle(WANTED)

    assert calls == [
        "outer before lend_book on BookWanted",
        "inner before lend_book on BookWanted",
        "inner after BookLent",
        "outer after BookLent",
    ]
    assert await states(database, "loan-1") == ["completed"]


async def test_middleware_runs_around_compensations_and_external_steps(database: Database, clerk: Clerk) -> None:
    calls: list[str] = []
    branch = branch_with(database, clerk, recorded("only", calls), external=True)

    await branch.handle(WANTED)
    await branch.handle(CardRefused(loan_id="loan-1", reason="expired"))

    assert calls[::2] == ["only before lend_book on BookWanted", "only before take_back on CardRefused"]
    assert await states(database, "loan-1") == ["executing", "completed", "compensating", "compensated"]


async def test_an_error_of_middleware_fails_the_attempt(database: Database, clerk: Clerk) -> None:
    async def deny(call_next: Any, step: Any, event: Event) -> Event:
        await call_next()
        raise PermissionError("no tenant")

    branch = branch_with(database, clerk, deny)

    await branch.handle(WANTED)

    assert await notes(database, "loan-1") == ["retrying"]
    async with database.reading() as connection:
        assert list(await connection.execute(text("SELECT loan_id FROM loans"))) == []


async def test_middleware_sees_the_error_of_the_step(database: Database, clerk: Clerk) -> None:
    seen: list[str] = []

    async def watch(call_next: Any, step: Any, event: Event) -> Event:
        try:
            return await call_next()
        except ConnectionError as error:
            seen.append(str(error))
            raise

    async def fail(*_: Any) -> None:
        raise ConnectionError("catalogue away")

    clerk.will("lend_book", fail)
    branch = branch_with(database, clerk, watch)

    await branch.handle(WANTED)

    assert "catalogue away" in seen
    assert await notes(database, "loan-1") == ["retrying"]


async def test_an_undeclared_event_of_middleware_fails_the_attempt(database: Database, clerk: Clerk) -> None:
    async def replaces(call_next: Any, step: Any, event: Event) -> Event:
        await call_next()
        return event

    branch = branch_with(database, clerk, replaces)

    await branch.handle(WANTED)

    assert await notes(database, "loan-1") == ["retrying"]


async def test_a_context_variable_of_middleware_reaches_the_step(database: Database, clerk: Clerk) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="none")
    seen: list[str] = []

    async def set_tenant(call_next: Any, step: Any, event: Event) -> Event:
        token = tenant.set(event.loan_id)
        try:
            return await call_next()
        finally:
            tenant.reset(token)

    async def read_tenant(call_next: Any, step: Any, event: Event) -> Event:
        seen.append(tenant.get())
        return await call_next()

    branch = branch_with(database, clerk, set_tenant, read_tenant)

    await branch.handle(WANTED)

    assert (seen, tenant.get()) == (["loan-1"], "none")
