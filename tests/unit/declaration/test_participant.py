"""A participant holds its steps and compensations as their decorators declare them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.unit.declaration.visits import (
    DishFailed,
    Menu,
    TableFreed,
    TableKept,
    TableRefused,
    TableWanted,
    free_table,
    visit_saga,
)
from toolkit import DeclarationError, IdempotencyKey, Participant, RetryPolicy


def test_the_signature_is_the_graph(waiter: Participant) -> None:
    @waiter.step()
    async def keep(
        event: TableWanted | TableFreed, session: AsyncSession, key: IdempotencyKey, menu: Menu
    ) -> TableKept | TableRefused: ...

    @waiter.compensation(of=keep)
    async def free(event: DishFailed, original: TableKept) -> TableFreed: ...

    step, undo = waiter.steps[0], waiter.compensations[0]
    assert step.triggers == (TableWanted, TableFreed)
    assert (step.success, step.refusals) == (TableKept, (TableRefused,))
    assert (step.signature.session, step.signature.key, dict(step.signature.resources)) == (
        "session",
        "key",
        {"menu": Menu},
    )
    assert (undo.of, undo.emits, undo.signature.original_may_be_none) == (step, TableFreed, False)
    assert waiter.compensation_of(step) is undo
    assert waiter.consumed() == {TableWanted, TableFreed, DishFailed}
    assert waiter.emitted() == {TableKept, TableRefused, TableFreed}
    assert step.is_refusable
    assert step.ends_saga


def test_several_event_parameters_are_slots(waiter: Participant) -> None:
    @waiter.step()
    async def seat(session: AsyncSession, guest: TableWanted | TableFreed, dish: TableKept) -> TableFreed: ...

    step = waiter.steps[0]
    assert dict(step.slots) == {"guest": (TableWanted, TableFreed), "dish": (TableKept,)}
    assert step.triggers == (TableWanted, TableFreed, TableKept)
    assert (step.signature.is_join, step.signature.event, step.signature.session) == (True, "guest", "session")


def test_a_compensation_has_slots_beside_its_original(waiter: Participant, keep_table: Callable) -> None:
    @waiter.compensation(of=keep_table)
    async def free(original: TableKept, dish: DishFailed, guest: TableWanted) -> TableFreed: ...

    undo = waiter.compensations[0]
    assert dict(undo.slots) == {"dish": (DishFailed,), "guest": (TableWanted,)}
    assert (undo.signature.is_join, undo.signature.originals) == (True, (TableKept,))


def test_several_steps_run_on_one_event(waiter: Participant, keep_table: Callable) -> None:
    @waiter.step()
    async def greet(event: TableFreed | TableWanted) -> TableKept: ...

    assert [step.name for step in waiter.steps if TableWanted in step.triggers] == ["keep_table", "greet"]
    assert not any(step.signature.is_join for step in waiter.steps)


def test_a_decorator_returns_the_function_itself(waiter: Participant, keep_table: Callable) -> None:
    undo = waiter.compensation(of=keep_table)(free_table)

    assert keep_table.__name__ == "keep_table"
    assert undo is free_table


def test_a_step_can_override_its_participants_policy() -> None:
    patient, quick = RetryPolicy(attempts=9), RetryPolicy(attempts=1)
    cook = Participant("cook", saga=visit_saga, retry=patient, timeout=timedelta(hours=1))

    @cook.step()
    async def cook_slowly(event: TableKept) -> TableFreed: ...

    @cook.step(retry=quick, timeout=timedelta(seconds=1))
    async def cook_fast(event: TableWanted) -> TableFreed: ...

    @cook.compensation(of=cook_fast, retry=quick)
    async def throw_away(event: DishFailed) -> TableFreed: ...

    slow, fast = cook.steps
    assert (slow.retry, slow.timeout) == (patient, timedelta(hours=1))
    assert (fast.retry, fast.timeout) == (quick, timedelta(seconds=1))
    assert cook.compensations[0].retry is quick
    assert not slow.is_refusable


def test_a_step_can_override_its_participants_external() -> None:
    courier = Participant("courier", saga=visit_saga, external=True)

    @courier.step()
    async def phone(event: TableWanted) -> TableKept: ...

    @courier.step(external=False)
    async def write_down(event: TableFreed) -> TableKept: ...

    assert [step.external for step in courier.steps] == [True, False]
    with pytest.raises(DeclarationError, match="phone is external, so its outcome may be unknown"):
        courier.compensation(of=phone)(free_table)
    courier.compensation(of=write_down)(free_table)


def test_a_decorator_without_parentheses_has_a_cure(waiter: Participant) -> None:
    with pytest.raises(DeclarationError, match=r"free_table: .* Write @waiter\.step\(\) above it") as caught:
        waiter.step(free_table)  # type: ignore[arg-type]  # as a decorator without parentheses does
    assert caught.value.function == f"{free_table.__module__}.free_table"

    with pytest.raises(DeclarationError, match=r"Write @waiter\.compensation\(of=the_step\) above it"):
        waiter.compensation(free_table)
    with pytest.raises(DeclarationError, match=r"Write @waiter\.compensation\(of=the_step\) above it"):
        waiter.compensation()
