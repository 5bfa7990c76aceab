"""A wrong step fails at its declaration, with the function, the fault and the cure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy.orm
import sqlmodel
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.unit.declaration.visits import (
    Rumour,
    TableFreed,
    TableKept,
    TableRefused,
    TableRefusedTo,
    TableWanted,
)
from toolkit import DeclarationError, Participant
from toolkit.declaration import events as module


async def has_no_return_type(event: TableWanted): ...


def is_not_async(event: TableWanted) -> TableKept: ...


async def takes_nothing() -> TableKept: ...


async def lacks_the_events_annotation(event) -> TableKept: ...


async def takes_a_number(event: int) -> TableKept: ...


async def takes_a_session_alone(session: AsyncSession) -> TableKept: ...


async def takes_what_comes(event: TableWanted, **rest) -> TableKept: ...


async def takes_all_tables(event: TableWanted, *tables: int) -> TableKept: ...


async def takes_an_event_or_none(table: TableWanted, guest: TableFreed | None) -> TableKept: ...


async def takes_a_blocking_session(event: TableWanted, session: sqlmodel.Session) -> TableKept: ...


async def takes_another_blocking_session(event: TableWanted, session: sqlalchemy.orm.Session) -> TableKept: ...


async def takes_a_rumour(event: Rumour) -> TableKept: ...


async def returns_nothing(event: TableWanted) -> None: ...


async def returns_perhaps(event: TableWanted) -> TableKept | None: ...


async def returns_a_rumour(event: TableWanted) -> Rumour: ...


async def only_refuses(event: TableWanted) -> TableRefused: ...


async def succeeds_in_two_ways(event: TableWanted) -> TableKept | TableFreed | TableRefused: ...


async def refuses_with_a_name(event: TableWanted) -> TableKept | TableRefusedTo: ...


async def names_an_unknown_class(event: TableWanted) -> Nowhere: ...  # noqa: F821 -- what the test is about


async def names_an_unknown_attribute(event: module.Nowhere) -> TableKept: ...


async def joins_types_that_cannot_be_joined(event: "TableWanted | 'Nothing'") -> TableKept: ...  # noqa: F821, UP037


async def has_an_invalid_annotation(event: TableWanted) -> "a table": ...  # noqa: F722 -- what the test is about


async def takes_an_original(event: TableWanted, original: TableKept) -> TableKept: ...


async def fills_two_slots_by_one_event(table: TableWanted | TableKept, guest: TableWanted) -> TableFreed: ...


async def takes_an_event_or_a_number(table: TableWanted, guest: TableKept | int) -> TableFreed: ...


async def takes_an_event_and_a_rumour(table: TableWanted, news: Rumour) -> TableFreed: ...


async def takes_a_list(event: TableWanted, tables: list[int]) -> TableKept: ...


async def lacks_the_sessions_annotation(event: TableWanted, session) -> TableKept: ...


NO_STEPS = [
    (has_no_return_type, "it has no return type", "Declare the events that it emits"),
    (is_not_async, "it is not a coroutine function", "Write `async def`"),
    (takes_nothing, "it takes no event", "Take the event as a parameter"),
    (lacks_the_events_annotation, "the parameter 'event' has no annotation", "Annotate it with"),
    (takes_a_number, "it takes no event: 'event' is int", "its class subclasses toolkit.Event"),
    (takes_a_session_alone, "it takes no event: 'session' is AsyncSession", "`event: SomethingHappened`"),
    (takes_what_comes, "the parameter '**rest' has no annotation", "Annotate it with"),
    (takes_all_tables, "the parameter '*tables' takes any number of arguments", "Declare each parameter by its name"),
    (takes_an_event_or_none, "the parameter 'guest' may be None, which is not an Event", "the step waits until"),
    (takes_a_blocking_session, "takes a Session, whose", "Use sqlmodel.ext.asyncio.session.AsyncSession"),
    (takes_another_blocking_session, "takes a Session, whose", "Use sqlmodel.ext.asyncio.session.AsyncSession"),
    (takes_a_rumour, "the parameter 'event' is Rumour, which has no owner", 'Declare `class Rumour(..., owner="'),
    (returns_nothing, "the return type may be None, which is not an Event", "Return an event in every case"),
    (returns_perhaps, "the return type may be None, which is not an Event", "Return an event in every case"),
    (returns_a_rumour, "the return type is Rumour, which has no owner", 'Declare `class Rumour(..., owner="'),
    (only_refuses, "a step has exactly one success among what it returns, here: none", "Return one Event"),
    (succeeds_in_two_ways, "exactly one success among what it returns, here: TableKept, TableFreed", "Return one"),
    (refuses_with_a_name, "TableRefusedTo requires guest", "Give every field but 'visit_id' and 'reason' a default"),
    (names_an_unknown_class, "an annotation can't be resolved: name 'Nowhere'", "Import it at module level"),
    (names_an_unknown_attribute, "an annotation can't be resolved: module", "Import it at module level"),
    (joins_types_that_cannot_be_joined, "an annotation can't be resolved", "Import it at module level"),
    (has_an_invalid_annotation, "an annotation can't be resolved", "Import it at module level"),
    (takes_an_original, "a step has no original", "Only a compensation takes a parameter named `original`"),
    (fills_two_slots_by_one_event, "TableWanted fills both 'table' and 'guest'", "Let each event fill one parameter"),
    (takes_an_event_or_a_number, "the parameter 'guest' is int, which is not an Event", "Subclass toolkit.Event"),
    (takes_an_event_and_a_rumour, "the parameter 'news' is Rumour, which has no owner", "Declare `class Rumour("),
    (
        takes_a_list,
        "the parameter 'tables' is annotated list[int], which is nothing that a step may take",
        "Annotate it with AsyncSession",
    ),
    (
        lacks_the_sessions_annotation,
        "the parameter 'session' has no annotation",
        "Annotate it with AsyncSession",
    ),
]


@pytest.mark.parametrize(("function", "fault", "cure"), NO_STEPS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_wrong_step_has_a_fault_and_cure(waiter: Participant, function: Callable, fault: str, cure: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        waiter.step()(function)

    assert caught.value.function == f"{__name__}.{function.__name__}"
    assert fault in caught.value.fault
    assert cure in caught.value.cure
    assert str(caught.value) == f"{caught.value.function}: {caught.value.fault}. {caught.value.cure}."
    assert waiter.steps == []


def test_two_steps_cannot_have_one_name(waiter: Participant, keep_table: Callable) -> None:
    async def again(event: TableFreed) -> TableKept: ...

    again.__name__ = "keep_table"

    with pytest.raises(DeclarationError, match=r"a step of this name exists already\. Rename one"):
        waiter.step()(again)
