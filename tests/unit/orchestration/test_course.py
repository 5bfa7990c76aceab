"""What a coordinator does next, by the states of the steps that it asks."""

from __future__ import annotations

import pytest

from toolkit.orchestration.course import Course, Move
from toolkit.protocol.commands import Outcome, Verb
from toolkit.protocol.fence import SagaState, StepState

PLAN = (("reserve",), ("pay", "insure"), ("ship",))
DONE, ASKED = StepState.COMPLETED, StepState.EXECUTING


def course(failed_end: str | None = None, **states: StepState) -> Course:
    """Return the course of the plan from these states."""
    return Course(PLAN, states, failed_end=failed_end)


def test_the_first_group_is_asked_at_the_start() -> None:
    begun = course()

    begun.start()

    assert begun.moves == [Move("reserve", ASKED, Verb.ASK)]


def test_parallel_steps_are_asked_at_once() -> None:
    going = course(reserve=ASKED)

    going.replied("reserve", Outcome.COMPLETED)

    assert going.moves == [Move("reserve", DONE), Move("pay", ASKED, Verb.ASK), Move("insure", ASKED, Verb.ASK)]


def test_the_next_group_waits_for_all_of_one() -> None:
    going = course(reserve=DONE, pay=ASKED, insure=ASKED)

    going.replied("pay", Outcome.COMPLETED)

    assert going.moves == [Move("pay", DONE)]


def test_the_last_success_completes_the_saga() -> None:
    going = course(reserve=DONE, pay=DONE, insure=DONE, ship=ASKED)

    going.replied("ship", Outcome.FINAL)

    assert going.moves == [Move("ship", DONE), Move("ship", StepState.CONFIRMED)]
    assert going.end is SagaState.COMPLETED


def test_a_refusal_undoes_its_own_group_first() -> None:
    going = course(reserve=DONE, pay=DONE, insure=ASKED)

    going.replied("insure", Outcome.REFUSED)

    assert going.moves == [Move("insure", StepState.FAILED), Move("pay", StepState.COMPENSATING, Verb.UNDO)]


def test_a_refusal_gives_up_its_siblings() -> None:
    going = course(reserve=DONE, pay=ASKED, insure=ASKED)

    going.replied("insure", Outcome.REFUSED)

    assert going.moves == [Move("insure", StepState.FAILED), Move("pay", StepState.VOIDING, Verb.UNDO)]


def test_the_group_before_is_undone_last() -> None:
    going = course(reserve=DONE, pay=StepState.COMPENSATING, insure=StepState.FAILED)

    going.replied("pay", Outcome.UNDONE)

    assert going.moves == [Move("pay", StepState.COMPENSATED), Move("reserve", StepState.COMPENSATING, Verb.UNDO)]


def test_without_a_failed_end_the_saga_fails() -> None:
    going = course(reserve=ASKED)

    going.replied("reserve", Outcome.REFUSED)

    assert (going.moves, going.end) == ([Move("reserve", StepState.FAILED)], SagaState.FAILED)


def test_the_failed_end_is_asked_before_it_fails() -> None:
    going = course("notice", reserve=ASKED)

    going.replied("reserve", Outcome.REFUSED)
    assert going.moves[-1] == Move("notice", ASKED, Verb.ASK)
    assert going.end is None

    going.replied("notice", Outcome.FINAL)
    assert going.moves[-1] == Move("notice", DONE)
    assert going.end is SagaState.FAILED


def test_giving_up_undoes_the_step_itself() -> None:
    going = course(reserve=DONE, pay=ASKED, insure=DONE)

    going.gave_up("pay")

    assert going.moves == [Move("pay", StepState.VOIDING, Verb.UNDO)]


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.UNDONE])
def test_a_given_up_step_fails_by_either_reply(outcome: Outcome) -> None:
    going = course(reserve=StepState.VOIDING)

    going.replied("reserve", outcome)

    assert (going.moves, going.end) == ([Move("reserve", StepState.FAILED)], SagaState.FAILED)


def test_a_late_success_is_not_believed() -> None:
    going = course(reserve=StepState.VOIDING)

    going.replied("reserve", Outcome.COMPLETED)

    assert going.moves == []


def test_a_late_final_success_is_believed() -> None:
    going = course(reserve=StepState.VOIDING)

    going.replied("reserve", Outcome.FINAL)

    assert going.moves[0] == Move("reserve", DONE)
    assert going.moves[-1] == Move("insure", ASKED, Verb.ASK)


def test_an_abort_gives_up_all_asked_steps() -> None:
    going = course(reserve=DONE, pay=ASKED, insure=ASKED)

    going.aborted()

    assert [move.step for move in going.moves] == ["pay", "insure"]
    assert {move.to for move in going.moves} == {StepState.VOIDING}


def test_an_abort_before_the_start_fails_at_once() -> None:
    unknown = course()

    unknown.aborted()

    assert (unknown.moves, unknown.end) == ([], SagaState.FAILED)


def test_an_abort_does_not_give_up_the_end() -> None:
    ending = course("notice", reserve=StepState.FAILED, notice=ASKED)

    ending.aborted()

    assert ending.moves == []
