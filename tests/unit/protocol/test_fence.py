"""The fence: what may follow what, and what a message may do, for every pair there is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from toolkit.protocol.fence import TRANSITIONS, Arrival, Decision, StepState, decide, is_legal

STATES = [None, *StepState]

#: What each arrival does in each state, in full; the columns are the arrivals.
TABLE = {
    #                        an event to run on,  the way back,       an abort
    None:                    (Decision.RUN,       Decision.FENCE,     Decision.FENCE),
    StepState.GATHERING:     (Decision.RUN,       Decision.FENCE,     Decision.FENCE),
    StepState.EXECUTING:     (Decision.RUN,       Decision.DEFER,   Decision.DEFER),
    StepState.VOIDING:       (Decision.VOID,      Decision.DEFER,   Decision.DEFER),
    StepState.COMPLETED:     (Decision.IGNORE,    Decision.UNDO,      Decision.IGNORE),
    StepState.COMPENSATING:  (Decision.IGNORE,    Decision.UNDO,      Decision.IGNORE),
    StepState.COMPENSATED:   (Decision.IGNORE,    Decision.IGNORE,    Decision.IGNORE),
    StepState.FAILED:        (Decision.IGNORE,    Decision.IGNORE,    Decision.IGNORE),
    StepState.FENCED:        (Decision.IGNORE,    Decision.IGNORE,    Decision.IGNORE),
    StepState.CONFIRMED:     (Decision.IGNORE,    Decision.IGNORE,    Decision.IGNORE),
}  # fmt: skip

LEGAL = {
    (None, "completed"),
    (None, "failed"),
    (None, "fenced"),
    (None, "executing"),
    (None, "gathering"),
    ("gathering", "gathering"),
    ("gathering", "completed"),
    ("gathering", "failed"),
    ("gathering", "fenced"),
    ("gathering", "executing"),
    ("executing", "completed"),
    ("executing", "failed"),
    ("executing", "voiding"),
    ("voiding", "failed"),
    ("completed", "compensated"),
    ("completed", "compensating"),
    ("completed", "confirmed"),
    ("compensating", "compensated"),
}


@pytest.mark.parametrize(("arrival", "state"), list(product(Arrival, STATES)))
def test_every_arrival_in_every_state_is_decided(arrival: Arrival, state: StepState | None) -> None:
    assert decide(arrival, state) is TABLE[state][list(Arrival).index(arrival)]


@pytest.mark.parametrize(("before", "after"), list(product(STATES, StepState)))
def test_every_transition_is_legal_or_not(before: StepState | None, after: StepState) -> None:
    assert is_legal(before, after) == ((before, after) in LEGAL)


def lives() -> Iterator[list[StepState | None]]:
    """Every life that a step can have, from its empty stream to a state without a way out; one arrival is enough."""
    unfinished: list[list[StepState | None]] = [[None]]
    while unfinished:
        life = unfinished.pop()
        following = TRANSITIONS.get(life[-1], frozenset()) - ({life[-1]} & {StepState.GATHERING})
        if not following:
            yield life
        unfinished.extend([*life, after] for after in following)


def test_no_state_is_reached_twice() -> None:
    assert all(len(set(life)) == len(life) for life in lives())


def test_every_state_is_reached_in_some_life() -> None:
    assert {state for life in lives() for state in life} == set(STATES)


def test_a_life_ends_undone_unmade_or_confirmed() -> None:
    assert {life[-1] for life in lives()} == {
        StepState.FAILED,
        StepState.FENCED,
        StepState.COMPENSATED,
        StepState.CONFIRMED,
    }


def test_whoever_gives_up_makes_completing_impossible() -> None:
    assert not any(
        StepState.COMPLETED in life and {StepState.VOIDING, StepState.FENCED, StepState.FAILED} & set(life)
        for life in lives()
    )


def test_a_confirmed_step_is_never_undone() -> None:
    assert not any(
        StepState.CONFIRMED in life and {StepState.COMPENSATING, StepState.COMPENSATED} & set(life) for life in lives()
    )


@pytest.mark.parametrize("state", STATES)
def test_every_decision_is_legal_in_its_state(state: StepState | None) -> None:
    """What is decided leads to an entry that may be written."""
    leads_to = {
        Decision.RUN: {StepState.COMPLETED, StepState.FAILED},
        Decision.VOID: {StepState.FAILED},
        Decision.UNDO: {StepState.COMPENSATED},
        Decision.FENCE: {StepState.FENCED},
    }

    for arrival in Arrival:
        for after in leads_to.get(decide(arrival, state), ()):
            assert is_legal(state, after)


def test_only_a_coordinators_given_up_step_may_complete() -> None:
    assert is_legal(StepState.VOIDING, StepState.COMPLETED, is_asked=True)
    assert not is_legal(StepState.VOIDING, StepState.COMPLETED)
