"""The fence: which entry may follow which in a step's stream, and what an arriving message may do.

Pure tables, no I/O. The saga log's unique key `(saga_id, saga_type, step, position)` makes them hold under every race:
the first transaction to take a position wins, and the loser reads again. This is optimistic concurrency on an event
stream.
"""

from __future__ import annotations

from enum import StrEnum


class StepState(StrEnum):
    """The last entry of one step's stream in one saga; None stands for an empty stream."""

    GATHERING = "gathering"
    """A join has some of its events, and waits for the others; nothing has run yet."""
    EXECUTING = "executing"
    """An external step is calling another system; the outcome is not known yet."""
    COMPLETED = "completed"
    FAILED = "failed"
    """Refused: by the business, by the deadline, or because the retries are spent."""
    FENCED = "fenced"
    """A compensation or an abort came first: the step never takes effect."""
    VOIDING = "voiding"
    """An external step gave up without knowing the outcome, and now cancels what it may have done.

    In a coordinator's log: it gave up waiting for the step, and has asked to undo it.
    """
    COMPENSATING = "compensating"
    """An external compensation is calling another system."""
    COMPENSATED = "compensated"
    CONFIRMED = "confirmed"
    """The saga completed; nothing can undo the step any more."""


class SagaState(StrEnum):
    """The state of a saga as far as one service can see it."""

    STARTED = "Started"
    PENDING = "Pending"
    COMPENSATING = "Compensating"
    COMPLETED = "Completed"
    FAILED = "Failed"

    @property
    def is_ended(self) -> bool:
        """Whether nothing more is to come."""
        return self in (SagaState.COMPLETED, SagaState.FAILED)


#: What may follow nothing, or a join that gathers: nothing has run in either.
_BEGUN = frozenset({StepState.GATHERING, StepState.COMPLETED, StepState.FAILED, StepState.FENCED, StepState.EXECUTING})
#: The legal transitions. A state that is no key is final.
TRANSITIONS: dict[StepState | None, frozenset[StepState]] = {
    None: _BEGUN,
    StepState.GATHERING: _BEGUN,
    StepState.EXECUTING: frozenset({StepState.COMPLETED, StepState.FAILED, StepState.VOIDING}),
    StepState.VOIDING: frozenset({StepState.FAILED}),
    StepState.COMPLETED: frozenset({StepState.COMPENSATED, StepState.COMPENSATING, StepState.CONFIRMED}),
    StepState.COMPENSATING: frozenset({StepState.COMPENSATED}),
}


class Arrival(StrEnum):
    """The kind of a message, for one step."""

    FORWARD = "forward"
    COMPENSATION = "compensation"
    ABORT = "abort"


class Decision(StrEnum):
    """The action that a message leads to."""

    RUN = "run"
    """Run the step, or run it again under the same idempotency key; a join first gathers its events."""
    VOID = "void"
    """Continue to cancel what the step may have done outside."""
    UNDO = "undo"
    """Run the compensation, or run it again under the same idempotency key."""
    FENCE = "fence"
    """Take the step's next position, so that it never takes effect, and emit the next event of the chain."""
    DEFER = "defer"
    """Handle the message later: while the outcome is unknown nothing may fence the step."""
    IGNORE = "ignore"


_DECISIONS: dict[tuple[Arrival, StepState | None], Decision] = {
    (Arrival.FORWARD, None): Decision.RUN,
    (Arrival.FORWARD, StepState.GATHERING): Decision.RUN,
    (Arrival.FORWARD, StepState.EXECUTING): Decision.RUN,
    (Arrival.FORWARD, StepState.VOIDING): Decision.VOID,
    (Arrival.COMPENSATION, None): Decision.FENCE,
    (Arrival.COMPENSATION, StepState.GATHERING): Decision.FENCE,
    (Arrival.COMPENSATION, StepState.EXECUTING): Decision.DEFER,
    (Arrival.COMPENSATION, StepState.VOIDING): Decision.DEFER,
    (Arrival.COMPENSATION, StepState.COMPLETED): Decision.UNDO,
    (Arrival.COMPENSATION, StepState.COMPENSATING): Decision.UNDO,
    (Arrival.ABORT, None): Decision.FENCE,
    (Arrival.ABORT, StepState.GATHERING): Decision.FENCE,
    (Arrival.ABORT, StepState.EXECUTING): Decision.DEFER,
    (Arrival.ABORT, StepState.VOIDING): Decision.DEFER,
}


def decide(arrival: Arrival, state: StepState | None) -> Decision:
    """Return what a message may do to a step in this state; an unlisted pair, a duplicate's say, changes nothing."""
    return _DECISIONS.get((arrival, state), Decision.IGNORE)


def is_legal(before: StepState | None, after: StepState, *, is_asked: bool = False) -> bool:
    """Whether this entry may follow that one; `is_asked`: in a coordinator's stream of a step that it asks.

    There a step that was given up may turn out to be done, if nothing can undo it.
    """
    if is_asked and (before, after) == (StepState.VOIDING, StepState.COMPLETED):
        return True
    return after in TRANSITIONS.get(before, frozenset())


class Note(StrEnum):
    """The state of an entry without a position: the step's own state is unchanged."""

    RETRYING = "retrying"
    IGNORED = "ignored"
    DEAD_LETTERED = "dead_lettered"
    OVERDUE = "overdue"
    NUDGED = "nudged"
    ABORTED = "aborted"
    ENDED = "ended"
    REDRIVEN = "redriven"
    DROPPED = "dropped"
    REPLAYED = "replayed"
    REMINDED = "reminded"
