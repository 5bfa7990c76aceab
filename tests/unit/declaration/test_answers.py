"""A step waits for an answer beside the event that asks; a wrong declaration names the function, fault and cure."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.declaration.visits import TableFreed, TableKept, TableRefused, TableWanted, visit_saga
from toolkit import Answer, DeclarationError, Participant, SagaId, Service
from toolkit.declaration.contract import Contract


class Seated(Answer, owner="waiter"):
    visit_id: SagaId


class TurnedAway(Answer, owner="waiter"):
    visit_id: SagaId


async def decide(request: TableWanted, answer: Seated | TurnedAway) -> TableKept | TableRefused: ...


async def is_never_asked(answer: Seated) -> TableKept | TableRefused: ...


async def takes_answers_among_others(event: TableWanted, other: TableFreed | Seated) -> TableKept | TableRefused: ...


async def emits_an_answer(event: TableWanted) -> Seated: ...


async def emits_an_answer_among_others(event: TableWanted) -> TableKept | Seated: ...


async def keep(event: TableWanted) -> TableKept | TableRefused: ...


async def is_undone_by_an_answer(event: TurnedAway) -> TableFreed: ...


def test_contract_marks_answers_and_their_reminder():
    desk = Participant("desk", saga=visit_saga)
    desk.step(timeout=timedelta(hours=1), remind=timedelta(minutes=20))(decide)

    service = Service(name="desk", participants=[desk])
    contract = Contract.of(service)
    overridden = Contract.of(service, reminders={"decide": timedelta(minutes=1)})

    assert [name for name, event in contract.events.items() if event.answer] == ["Seated", "TurnedAway"]
    assert [handler.remind for handler in contract.handlers] == [1200.0]
    assert [handler.remind for handler in overridden.handlers] == [60.0]
    assert [slot.events for slot in contract.handlers[0].slots] == [("TableWanted",), ("Seated", "TurnedAway")]


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (is_never_asked, "it takes answers only"),
        (takes_answers_among_others, "the parameter 'other' takes answers and other events"),
        (emits_an_answer, "it emits Seated, which is an Answer, and an answer can't be emitted"),
        (emits_an_answer_among_others, "it emits Seated, which is an Answer, and an answer can't be emitted"),
    ],
)
def test_a_step_that_misuses_answers_fails(function, fault):
    with pytest.raises(DeclarationError, match=fault) as raised:
        Participant("desk", saga=visit_saga).step()(function)

    assert function.__name__ in str(raised.value)


@pytest.mark.parametrize(
    ("remind", "function", "fault"),
    [
        (timedelta(hours=1), keep, "it reminds, but waits for no Answer"),
        (timedelta(0), decide, "is not a positive timedelta"),
        (60, decide, "its remind 60 is not a positive timedelta"),
        (timedelta(days=3), decide, "is not shorter than its timeout 3 days, 0:00:00, so no reminder ever comes"),
    ],
)
def test_a_reminder_needs_a_period_and_an_answer(remind, function, fault):
    with pytest.raises(DeclarationError, match=fault):
        Participant("desk", saga=visit_saga, timeout=timedelta(days=3)).step(remind=remind)(function)


def test_no_compensation_runs_on_an_answer():
    desk = Participant("desk", saga=visit_saga)
    desk.step()(keep)

    with pytest.raises(DeclarationError, match="nothing to do with an Answer, here: TurnedAway"):
        desk.compensation(of=keep)(is_undone_by_an_answer)
