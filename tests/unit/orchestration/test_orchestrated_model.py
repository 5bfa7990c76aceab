"""The coordinator's rules hold under every interleaving, each of them is needed, and the fence allows its moves."""

from __future__ import annotations

import pytest

from tests.orchestrated_model import SHORT, STRICT, Variant, explore
from toolkit.protocol.fence import is_legal


def test_no_interleaving_breaks_the_coordinators_rules() -> None:
    found = explore(groups=STRICT)

    assert found.faults == {}
    assert found.states > 1_000
    assert found.at_rest > 10


def test_parallel_steps_break_no_rule_either() -> None:
    assert explore(groups=SHORT).faults == {}


def test_two_replicas_break_no_rule_either() -> None:
    assert explore(groups=(("pay",), ("confirm",)), replicas=2).faults == {}


@pytest.mark.parametrize(
    ("variant", "fault"),
    [
        (Variant.NO_FENCE, "undone before a later step"),
        (Variant.EARLIER_ONLY, "undone before a later step"),
        (Variant.BELIEVES_LATE, "undone before a later step"),
        (Variant.ALL_AT_ONCE, "undone before a later step"),
        (Variant.DEAF_TO_LATE_REFUSAL, "at rest without an end"),
        (Variant.DISBELIEVES_FINAL, "at rest, done, but not everywhere"),
        (Variant.UNDOES_FINAL, "done, yet something was undone"),
        (Variant.STEPS_FENCE_ABORTS, "at rest without an end"),
    ],
)
def test_without_one_of_its_rules_the_coordinator_errs(variant: Variant, fault: str) -> None:
    assert fault in explore(variant).faults


def test_parallel_replies_without_one_position_are_lost() -> None:
    assert "at rest without an end" in explore(Variant.SIDE_BY_SIDE, SHORT, replicas=2).faults


def test_fence_allows_all_of_the_coordinators_moves() -> None:
    moves = explore(groups=STRICT).transitions

    assert all(is_legal(before, after, is_asked=True) for before, after in moves if (before, after) not in _IN_TWO)


#: A step that nothing can undo is confirmed by the coordinator at once: two entries of one transaction.
_IN_TWO = {("executing", "confirmed"), ("voiding", "confirmed")}
