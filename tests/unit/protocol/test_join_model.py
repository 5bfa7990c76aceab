"""Joins hold under every interleaving, each of their rules is needed, and their moves are the fence's."""

from __future__ import annotations

import pytest

from tests.join_model import Variant, explore
from toolkit.protocol.fence import TRANSITIONS, StepState


@pytest.mark.parametrize("has_deadline", [True, False])
def test_no_interleaving_breaks_a_join(has_deadline: bool) -> None:
    found = explore(Variant.PROTOCOL, has_deadline=has_deadline)

    assert found.faults == {}
    assert found.states > 900
    assert found.at_rest > 30


@pytest.mark.parametrize(
    ("variant", "fault"),
    [
        (Variant.SLOT_KEYED, "at rest without an end"),
        (Variant.BACK_ON_FIRST, "prepare was undone before a branch"),
        (Variant.BACK_COUNTS_UNDONE_ONLY, "at rest without an end"),
        (Variant.FENCE_SILENT, "at rest without an end"),
        (Variant.SIBLINGS_DEAF, "at rest without an end"),
    ],
)
def test_without_one_of_its_rules_a_join_breaks(variant: Variant, fault: str) -> None:
    found = explore(variant, has_deadline=False)

    assert fault in found.faults


def test_two_keys_let_two_arrivals_miss_each_other() -> None:
    found = explore(Variant.SLOT_KEYED, has_deadline=False)

    assert found.faults["at rest without an end"] == [
        "prepare completes",
        "hotel completes",
        "flight completes",
        "confirm reads the gate for hotel",
        "confirm reads the gate for flight",
        "flight is gathered",
        "hotel is gathered",
    ]


def test_the_fence_allows_exactly_the_moves_of_joins() -> None:
    """An external join is claimed where an ordinary one completes; the protocol's own model has the rest."""
    of_gates = {(StepState.GATHERING, after) for after in TRANSITIONS[StepState.GATHERING]}
    moves = explore(Variant.PROTOCOL).transitions

    assert (None, StepState.GATHERING) in moves
    gathering = {move for move in moves if StepState.GATHERING in move}
    assert gathering == (of_gates | {(None, StepState.GATHERING)}) - {
        (StepState.GATHERING, StepState.GATHERING),  # the step does not move, only its gate does
        (StepState.GATHERING, StepState.EXECUTING),
    }
