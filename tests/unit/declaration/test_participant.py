"""What is declared wrongly fails at import, and says which function, what is wrong, and how to put it right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from toolkit import DeclarationError, Event, IdempotencyKey, Participant, Refusal, RetryPolicy, Saga, SagaId
from toolkit.declaration import events as words


class TableWanted(Event, owner="guest"):
    visit_id: SagaId


class TableKept(Event, owner="waiter"):
    visit_id: SagaId
    table: int = 0


class TableRefused(Refusal, owner="waiter"):
    visit_id: SagaId


class TableRefusedTo(Refusal, owner="waiter"):
    visit_id: SagaId
    guest: str


class TableFreed(Event, owner="waiter"):
    visit_id: SagaId
    reason: str = ""


class TableFreedBy(Event, owner="waiter"):
    visit_id: SagaId
    waiter: str


class DishFailed(Refusal, owner="kitchen"):
    visit_id: SagaId


class Rumour(Event):
    visit_id: SagaId


class Menu:
    """No event, but something that a service may provide."""


visit_saga = Saga(
    name="visit", id_field="visit_id", starts_with=TableWanted, completes_with=TableKept, fails_with=TableFreed
)


@pytest.fixture
def waiter() -> Participant:
    return Participant("waiter", saga=visit_saga)


@pytest.fixture
def keep_table(waiter: Participant) -> Callable:
    """A step that stands already."""

    @waiter.step()
    async def keep_table(event: TableWanted) -> TableKept | TableRefused: ...

    return keep_table


# -- functions that are no steps -----------------------------------------------------------------------------------


async def says_nothing(event: TableWanted): ...


def is_not_async(event: TableWanted) -> TableKept: ...


async def takes_nothing() -> TableKept: ...


async def takes_something_unsaid(event) -> TableKept: ...


async def takes_a_number(event: int) -> TableKept: ...


async def takes_a_rumour(event: Rumour) -> TableKept: ...


async def returns_nothing(event: TableWanted) -> None: ...


async def returns_perhaps(event: TableWanted) -> TableKept | None: ...


async def returns_a_rumour(event: TableWanted) -> Rumour: ...


async def only_refuses(event: TableWanted) -> TableRefused: ...


async def succeeds_in_two_ways(event: TableWanted) -> TableKept | TableFreed | TableRefused: ...


async def refuses_with_a_name(event: TableWanted) -> TableKept | TableRefusedTo: ...


async def names_what_is_not_there(event: TableWanted) -> Nowhere: ...  # noqa: F821 -- what the test is about


async def names_what_is_not_in_a_module(event: words.Nowhere) -> TableKept: ...


async def joins_what_cannot_be_joined(event: "TableWanted | 'Nothing'") -> TableKept: ...  # noqa: F821, UP037


async def is_no_annotation(event: TableWanted) -> "a table": ...  # noqa: F722 -- what the test is about


async def takes_an_original(event: TableWanted, original: TableKept) -> TableKept: ...


async def takes_a_list(event: TableWanted, tables: list[int]) -> TableKept: ...


async def takes_the_unsaid(event: TableWanted, session) -> TableKept: ...


NO_STEPS = [
    (says_nothing, "it has no return type", "Declare what it emits"),
    (is_not_async, "it is not a coroutine function", "Write `async def`"),
    (takes_nothing, "it takes no event", "Take the event first"),
    (takes_something_unsaid, "the parameter 'event' is None, which is no Event", "Subclass toolkit.Event"),
    (takes_a_number, "the parameter 'event' is int, which is no Event", "Subclass toolkit.Event"),
    (takes_a_rumour, "the parameter 'event' is Rumour, which has no owner", 'Declare `class Rumour(..., owner="'),
    (returns_nothing, "the return type is NoneType, which is no Event", "Subclass toolkit.Event"),
    (returns_perhaps, "the return type is NoneType, which is no Event", "Subclass toolkit.Event"),
    (returns_a_rumour, "the return type is Rumour, which has no owner", 'Declare `class Rumour(..., owner="'),
    (only_refuses, "a step has exactly one success among what it returns, here: none", "Return one Event"),
    (succeeds_in_two_ways, "exactly one success among what it returns, here: TableKept, TableFreed", "Return one"),
    (refuses_with_a_name, "TableRefusedTo requires guest", "Give every field but 'visit_id' and 'reason' a default"),
    (names_what_is_not_there, "an annotation can't be resolved: name 'Nowhere'", "Import it at module level"),
    (names_what_is_not_in_a_module, "an annotation can't be resolved: module", "Import it at module level"),
    (joins_what_cannot_be_joined, "an annotation can't be resolved", "Import it at module level"),
    (is_no_annotation, "an annotation can't be resolved", "Import it at module level"),
    (takes_an_original, "a step has no original", "Only a compensation takes a parameter named `original`"),
    (takes_a_list, "the parameter 'tables' is a list[int], which nothing provides", "Annotate it with AsyncSession"),
    (takes_the_unsaid, "the parameter 'session' is a None, which nothing provides", "Annotate it with AsyncSession"),
]


@pytest.mark.parametrize(("function", "fault", "cure"), NO_STEPS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_function_that_is_no_step_says_what_is_wrong_and_how_to_put_it_right(
    waiter: Participant, function: Callable, fault: str, cure: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        waiter.step()(function)

    assert caught.value.function == f"{__name__}.{function.__name__}"
    assert fault in caught.value.fault
    assert cure in caught.value.cure
    assert str(caught.value) == f"{caught.value.function}: {caught.value.fault}. {caught.value.cure}."
    assert waiter.steps == []


# -- functions that are no compensations ---------------------------------------------------------------------------


async def undoes_without_a_word(event: DishFailed) -> None: ...


async def undoes_by_refusing(event: DishFailed) -> TableRefused: ...


async def undoes_with_two_words(event: DishFailed) -> TableFreed | TableKept: ...


async def undoes_under_a_name(event: DishFailed) -> TableFreedBy: ...


async def undoes_a_number(event: DishFailed, original: int) -> TableFreed: ...


async def undoes_another_event(event: DishFailed, original: TableWanted) -> TableFreed: ...


NO_COMPENSATIONS = [
    (undoes_without_a_word, "the return type is NoneType, which is no Event", "Subclass toolkit.Event"),
    (undoes_by_refusing, "emits exactly one event, and never a refusal", "let an error raise"),
    (undoes_with_two_words, "emits exactly one event, and never a refusal", "let an error raise"),
    (undoes_under_a_name, "TableFreedBy requires waiter, but it is also emitted where there was nothing", "default"),
    (
        undoes_another_event,
        "`original` is TableWanted, but keep_table emits TableKept",
        "Declare `original: TableKept`",
    ),
    (undoes_a_number, "the parameter 'original' is int, which is no Event", "Subclass toolkit.Event"),
]


@pytest.mark.parametrize(
    ("function", "fault", "cure"), NO_COMPENSATIONS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_function_that_is_no_compensation_says_what_is_wrong_and_how_to_put_it_right(
    waiter: Participant, keep_table: Callable, function: Callable, fault: str, cure: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        waiter.compensation(of=keep_table)(function)

    assert caught.value.function == f"{__name__}.{function.__name__}"
    assert fault in caught.value.fault
    assert cure in caught.value.cure
    assert waiter.compensations == []


async def free_table(event: DishFailed, original: TableKept) -> TableFreed: ...


async def free_table_whatever_is_known(event: DishFailed, original: TableKept | None) -> TableFreed: ...


def test_a_step_or_a_compensation_without_parentheses_says_how_to_write_it(waiter: Participant) -> None:
    with pytest.raises(DeclarationError, match=r"free_table: .* Write @waiter\.step\(\) above it") as caught:
        waiter.step(free_table)  # type: ignore[arg-type]  # as a decorator without parentheses does
    assert caught.value.function == f"{__name__}.free_table"

    with pytest.raises(DeclarationError, match=r"Write @waiter\.compensation\(of=the_step\) above it"):
        waiter.compensation(free_table)
    with pytest.raises(DeclarationError, match=r"Write @waiter\.compensation\(of=the_step\) above it"):
        waiter.compensation()


def test_what_compensates_no_step_of_this_participant_names_it(waiter: Participant) -> None:
    with pytest.raises(DeclarationError, match="free_table: it compensates 'says_nothing', which is no step of"):
        waiter.compensation(of=says_nothing)(free_table)


def test_a_step_has_one_compensation(waiter: Participant, keep_table: Callable) -> None:
    waiter.compensation(of=keep_table)(free_table)

    with pytest.raises(DeclarationError, match="keep_table is compensated by free_table already"):
        waiter.compensation(of=keep_table)(free_table_whatever_is_known)


def test_the_compensation_of_an_isolated_step_may_find_no_original(waiter: Participant) -> None:
    @waiter.step(external=True)
    async def phone_ahead(event: TableWanted, key: IdempotencyKey) -> TableKept | TableRefused: ...

    with pytest.raises(DeclarationError, match=r"Declare `original: TableKept \| None`, and void by key"):
        waiter.compensation(of=phone_ahead)(free_table)
    waiter.compensation(of=phone_ahead)(free_table_whatever_is_known)

    assert waiter.compensations[0].signature.original_may_be_none


def test_two_steps_cannot_run_on_one_event(waiter: Participant, keep_table: Callable) -> None:
    async def greet(event: TableFreed | TableWanted) -> TableKept: ...

    with pytest.raises(DeclarationError, match=r"greet: TableWanted already triggers the step keep_table\. Let one"):
        waiter.step()(greet)


def test_two_steps_cannot_have_one_name(waiter: Participant, keep_table: Callable) -> None:
    async def again(event: TableFreed) -> TableKept: ...

    again.__name__ = "keep_table"

    with pytest.raises(DeclarationError, match=r"a step of this name exists already\. Rename one"):
        waiter.step()(again)


# -- what is declared well -----------------------------------------------------------------------------------------


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


def test_a_declared_function_stays_the_function_that_it_was(waiter: Participant, keep_table: Callable) -> None:
    undo = waiter.compensation(of=keep_table)(free_table)

    assert keep_table.__name__ == "keep_table"
    assert undo is free_table


def test_a_step_takes_its_policy_from_its_participant_unless_it_has_its_own() -> None:
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


def test_a_step_is_isolated_as_its_participant_is_unless_it_says_otherwise() -> None:
    courier = Participant("courier", saga=visit_saga, external=True)

    @courier.step()
    async def phone(event: TableWanted) -> TableKept: ...

    @courier.step(external=False)
    async def write_down(event: TableFreed) -> TableKept: ...

    assert [step.external for step in courier.steps] == [True, False]
    with pytest.raises(DeclarationError, match="phone is external, so its outcome may be unknown"):
        courier.compensation(of=phone)(free_table)
    courier.compensation(of=write_down)(free_table)
