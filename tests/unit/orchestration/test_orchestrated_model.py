"""The coordinator's rules hold under every interleaving, each of them is needed, and the fence allows its moves."""

from __future__ import annotations

import pytest

from tests import orchestrated_model as variants
from tests.orchestrated_model import SHORT, STRICT, plan, side_by_side
from toolkit.checker.coordinated import AskedServices, Model
from toolkit.checker.moves import Invariant
from toolkit.checker.plan_explorer import PlanExploration, explore_plan
from toolkit.checker.plan_states import PlanAction, State
from toolkit.orchestration.course import Course
from toolkit.protocol.fence import is_legal


def test_no_interleaving_breaks_the_coordinators_rules() -> None:
    found = explored(Model(STRICT))

    assert found.is_proved
    assert found.states > 100
    assert found.at_rest > 10


def test_parallel_steps_break_no_rule_either() -> None:
    assert explored(Model(SHORT)).is_proved
    assert explored(Model(plan(("reserve", "insure"), ("pay", "pack")))).is_proved


@pytest.mark.parametrize("asked", [STRICT, SHORT], ids=["strict", "parallel"])
def test_two_replicas_break_no_rule_either(asked: variants.CoordinatedPlan) -> None:
    assert explored(Model(asked, replicas=2)).is_proved


@pytest.mark.parametrize(
    ("course", "fault"),
    [
        (variants.EarlierOnly, Invariant.REVERSE_ORDER),
        (variants.BelievesLate, Invariant.REVERSE_ORDER),
        (variants.AllAtOnce, Invariant.REVERSE_ORDER),
        (variants.DeafToLateRefusal, Invariant.AN_END),
        (variants.DisbelievesFinal, Invariant.AN_END),
    ],
)
def test_without_one_of_its_rules_the_coordinator_errs(course: type[Course], fault: Invariant) -> None:
    assert fault in faults(Model(STRICT, course=course))


@pytest.mark.parametrize(
    ("services", "fault"),
    [
        (variants.NoFence, Invariant.NOTHING_LATE),
        (variants.UndoesFinal, Invariant.NOTHING_LOST),
        (variants.StepsFenceAborts, Invariant.AN_END),
    ],
)
def test_without_one_of_their_rules_the_steps_err(services: type[AskedServices], fault: Invariant) -> None:
    assert fault in faults(Model(STRICT, services=services))


@pytest.mark.parametrize("asked", [STRICT, SHORT], ids=["strict", "parallel"])
def test_forgotten_messages_lose_no_state_of_the_logs(asked: variants.CoordinatedPlan) -> None:
    model, remembering = Model(asked), Model(asked)
    remembering.messages.settled = lambda state: state

    few, many = reached(model), reached(remembering)

    assert 2 * len(few) < len(many)
    assert {each[:2] for each in few} == {each[:2] for each in many}


def test_parallel_replies_without_one_position_are_lost() -> None:
    (lost,) = explored(side_by_side(SHORT)).counterexamples

    assert lost.invariant is Invariant.AN_END
    assert [move.reads.name for move in lost.story if move.reads] == ["insure"]
    assert lost.story[-1].action is PlanAction.DECIDES


def test_fence_allows_all_of_the_coordinators_moves() -> None:
    variants.Watched.transitions.clear()

    explored(Model(STRICT, course=variants.Watched))

    moves = variants.Watched.transitions
    assert len(moves) > 8
    assert all(is_legal(before, after, is_asked=True) for before, after in moves)


def reached(model: Model) -> set[State]:
    found, waiting = {model.first}, [model.first]
    while waiting:
        new = {after for _, after, _ in model.moves(waiting.pop())} - found
        found |= new
        waiting += new
    return found


def explored(model: Model) -> PlanExploration:
    return explore_plan(model, most_states=100_000)


def faults(model: Model) -> list[Invariant]:
    return [each.invariant for each in explored(model).counterexamples]
