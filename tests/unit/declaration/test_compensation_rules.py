"""A wrong compensation fails at its declaration, with the function, the fault and the cure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.declaration.visits import (
    DishFailed,
    GuestLeft,
    TableFreed,
    TableFreedBy,
    TableKept,
    TableRefused,
    TableWanted,
    free_table,
    free_table_if_kept,
)
from toolkit import DeclarationError, IdempotencyKey, Participant


async def emits_nothing(event: DishFailed) -> None: ...


async def emits_a_refusal(event: DishFailed) -> TableRefused: ...


async def emits_one_of_two_events(event: DishFailed) -> TableFreed | TableKept: ...


async def emits_an_event_with_a_name(event: DishFailed) -> TableFreedBy: ...


async def ends_the_saga(event: DishFailed) -> GuestLeft: ...


async def takes_a_number_as_original(event: DishFailed, original: int) -> TableFreed: ...


async def takes_another_original(event: DishFailed, original: TableWanted) -> TableFreed: ...


NO_COMPENSATIONS = [
    (emits_nothing, "the return type may be None, which is not an Event", "Return an event in every case"),
    (emits_a_refusal, "emits exactly one event, and never a refusal", "raise errors"),
    (emits_one_of_two_events, "emits exactly one event, and never a refusal", "raise errors"),
    (
        ends_the_saga,
        "it emits GuestLeft, which ends the saga visit only as the success of a step",
        "let a step that runs on this one return GuestLeft",
    ),
    (
        emits_an_event_with_a_name,
        "TableFreedBy requires waiter, but it is also emitted where there was nothing",
        "default",
    ),
    (
        takes_another_original,
        "`original` is TableWanted, but keep_table emits TableKept",
        "Declare `original: TableKept`",
    ),
    (takes_a_number_as_original, "the parameter 'original' is int, which is not an Event", "Subclass toolkit.Event"),
]


@pytest.mark.parametrize(
    ("function", "fault", "cure"), NO_COMPENSATIONS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_wrong_compensation_has_a_fault_and_cure(
    waiter: Participant, keep_table: Callable, function: Callable, fault: str, cure: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        waiter.compensation(of=keep_table)(function)

    assert caught.value.function == f"{__name__}.{function.__name__}"
    assert fault in caught.value.fault
    assert cure in caught.value.cure
    assert waiter.compensations == []


def test_a_compensation_of_an_unknown_step_is_refused(waiter: Participant) -> None:
    with pytest.raises(DeclarationError, match="free_table: it compensates 'emits_nothing', which is not a step of"):
        waiter.compensation(of=emits_nothing)(free_table)


def test_a_step_has_one_compensation(waiter: Participant, keep_table: Callable) -> None:
    waiter.compensation(of=keep_table)(free_table)

    with pytest.raises(DeclarationError, match="keep_table is compensated by free_table already"):
        waiter.compensation(of=keep_table)(free_table_if_kept)


def test_an_external_steps_original_may_be_none(waiter: Participant) -> None:
    @waiter.step(external=True)
    async def phone_ahead(event: TableWanted, key: IdempotencyKey) -> TableKept | TableRefused: ...

    with pytest.raises(DeclarationError, match=r"Declare `original: TableKept \| None`, and void by key"):
        waiter.compensation(of=phone_ahead)(free_table)
    waiter.compensation(of=phone_ahead)(free_table_if_kept)

    assert waiter.compensations[0].signature.original_may_be_none
