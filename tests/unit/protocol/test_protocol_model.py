"""The protocol holds under every interleaving, each of its rules is needed, and the fence is the protocol's."""

from __future__ import annotations

import pytest

from tests.protocol_model import Exploration, Variant, explore
from toolkit.protocol.fence import TRANSITIONS, StepState


@pytest.fixture(scope="module")
def protocol() -> Exploration:
    """The protocol, explored once."""
    return explore(Variant.PROTOCOL)


def test_no_interleaving_breaks_the_protocol(protocol: Exploration) -> None:
    print(f"{protocol.states} states, {protocol.at_rest} at rest")  # noqa: T201 -- the size of what was checked
    assert protocol.faults == {}
    assert protocol.states > 1_000
    assert protocol.at_rest > 10


@pytest.mark.parametrize(
    ("variant", "fault"),
    [
        (Variant.UNILATERAL, "fulfilled, yet something was undone"),
        (Variant.FENCE_SILENT, "at rest without an end"),
        (Variant.FENCE_CLAIMED, "at rest, failed, and the money kept"),
        (Variant.GIVE_UP_WITHOUT_VOID, "at rest, failed, and the money kept"),
        (Variant.VOID_BEFORE_POSITION, "payment stands, and its money was voided"),
        (Variant.VOID_REGARDLESS, "payment stands, and its money was voided"),
        (Variant.UNREAD_WITHOUT_KEY, "completed after an earlier step was undone"),
    ],
)
def test_without_one_of_its_rules_the_protocol_breaks(variant: Variant, fault: str) -> None:
    found = explore(variant)

    assert fault in found.faults


def test_voiding_without_a_position_loses_to_old_answer() -> None:
    found = explore(Variant.VOID_BEFORE_POSITION)

    assert found.faults["payment stands, and its money was voided"] == [
        "inventory completes",
        "payment claims",
        "the gateway is asked: charged",
        "the gateway voids",
        "payment completes",
    ]


def test_fence_allows_exactly_the_protocols_moves(protocol: Exploration) -> None:
    allowed = {(before, after) for before, following in TRANSITIONS.items() for after in following}

    assert protocol.transitions == {move for move in allowed if StepState.GATHERING not in move}
