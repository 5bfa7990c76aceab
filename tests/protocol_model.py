"""An explicit-state check of the order saga's protocol: every interleaving, every message late, early or doubled.

A message once sent may be delivered at any moment, any number of times. Each step may succeed or refuse; an abort may
come at any moment. Payment is external: a worker claims it, calls the gateway, and commits what it learnt *later*,
while another worker (the delivery came again after a crash) may do the same, or give up. One move is one transaction,
or one call to the gateway. A plain step may also run without a read of its stream: its transaction begins upon an empty
stream and commits at any time later, if its position is still free. Time is no part of it: what a deadline may bring
about, may happen at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.ways import Exploration, Ways
from toolkit.protocol.fence import StepState as At


class Variant(StrEnum):
    """The protocol, and what it would be with one of its rules taken away."""

    PROTOCOL = "the protocol"
    UNILATERAL = "a step that waits too long undoes itself"
    FENCE_SILENT = "a fence does not pass the chain on"
    FENCE_CLAIMED = "an abort fences a step whose outside call is under way"
    GIVE_UP_WITHOUT_VOID = "giving up voids nothing"
    VOID_BEFORE_POSITION = "giving up voids first, and takes its position afterwards"
    VOID_REGARDLESS = "who gives up voids, even where another worker took the position"
    UNREAD_WITHOUT_KEY = "a step that ran without a read commits, even where its position is taken"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the order saga, as its service declares it."""

    name: str
    on: str
    success: str
    refusal: str
    undone_on: tuple[str, ...] = ()
    undone: str = ""


INVENTORY = Step(
    "inventory", "OrderCreated", "InventoryReserved", "InventoryReservationFailed",
    ("PaymentFailed", "PaymentRefunded"), "InventoryReleased",
)  # fmt: skip
PAYMENT = Step(
    "payment", "InventoryReserved", "PaymentProcessed", "PaymentFailed",
    ("ShipmentFailed", "ShipmentCancelled"), "PaymentRefunded",
)  # fmt: skip
SHIPPING = Step(
    "shipping", "PaymentProcessed", "ShipmentCreated", "ShipmentFailed", ("NotificationFailed",), "ShipmentCancelled"
)
NOTIFICATION = Step("notification", "ShipmentCreated", "OrderFulfilled", "NotificationFailed")
STEPS = (INVENTORY, PAYMENT, SHIPPING, NOTIFICATION)

NOTICE_ON = {"InventoryReservationFailed", "InventoryReleased"}
FULFILLED, FAILED, ABORT = "OrderFulfilled", "OrderFailed", "AbortRequested"
#: The move that need not come: a saga ends without it.
ABORTED = "an operator aborts"

Last = tuple[At | None, ...]


@dataclass(frozen=True, slots=True)
class State:
    """Everything at one moment.

    - `last`: the last entry of each step's stream.
    - `ledger`: what stands at the gateway under the payment's key: charged, declined or voided.
    - `answer`: what a worker has learnt from the gateway and has not committed yet. The ledger may have moved on.
    - `sent`: the events under way; none is ever lost, and none is ever used up.
    - `unread`: the steps whose transactions run upon a stream that they take as empty.
    """

    last: Last = (None,) * len(STEPS)
    ledger: str | None = None
    answer: str | None = None
    is_noticed: bool = False
    sent: frozenset[str] = frozenset({"OrderCreated"})
    unread: frozenset[Step] = frozenset()

    def at(self, step: Step) -> At | None:
        """Return where a step stands."""
        return self.last[STEPS.index(step)]

    def move(self, step: Step, to: At, *events: str, **also: str | None) -> State:
        """Append an entry to a step's stream, and send what it emits."""
        index = STEPS.index(step)
        last = (*self.last[:index], to, *self.last[index + 1 :])
        return replace(self, last=last, sent=self.sent | set(events), **also)


@dataclass(frozen=True, slots=True)
class Move:
    """One transaction, or one call to the gateway: what it does, and the state that it leads to."""

    text: str
    after: State


LogDeltas = Iterator[Move]


def moves(state: State, variant: Variant) -> LogDeltas:
    """Yield all that can happen next."""
    if ABORT not in state.sent:
        yield Move(ABORTED, replace(state, sent=state.sent | {ABORT}))
    for step in STEPS:
        yield from _forward(state, step)
        yield from _without_a_read(state, step, variant)
        yield from _aborted(state, step, variant)
        yield from _back(state, step, variant)
        yield from _end(state, step, variant)
    yield from _outside(state, variant)
    if not state.is_noticed and state.sent & NOTICE_ON:
        yield Move("the customer hears no", replace(state, is_noticed=True, sent=state.sent | {FAILED}))


def _forward(state: State, step: Step) -> LogDeltas:
    if step.on not in state.sent or state.at(step) is not None:
        return
    if step is PAYMENT:
        yield Move("payment claims", state.move(step, At.EXECUTING))
    else:
        yield Move(f"{step.name} completes", state.move(step, At.COMPLETED, step.success))
    yield Move(f"{step.name} refuses", state.move(step, At.FAILED, step.refusal))


def _without_a_read(state: State, step: Step, variant: Variant) -> LogDeltas:
    """What a transaction does that takes the step's stream as empty: a duplicate, or one that another overtakes."""
    if step is PAYMENT:
        return
    if step.on in state.sent and step not in state.unread:
        yield Move(f"{step.name} begins without a read", replace(state, unread=state.unread | {step}))
    if step in state.unread:
        ended = replace(state, unread=state.unread - {step})
        if state.at(step) is None or variant is Variant.UNREAD_WITHOUT_KEY:
            yield Move(f"{step.name} commits without a read", ended.move(step, At.COMPLETED, step.success))
            yield Move(f"{step.name} refuses without a read", ended.move(step, At.FAILED, step.refusal))
        else:
            yield Move(f"{step.name} finds its position taken", ended)


def _outside(state: State, variant: Variant) -> LogDeltas:
    """What workers of the payment do; each may be slow, and any of them may act on an old answer."""
    at = state.at(PAYMENT)
    if at in (At.EXECUTING, At.VOIDING):
        # A call that was begun while `executing` stood may reach the gateway at any time later.
        for outcome in ("charged", "declined") if state.ledger is None else ():
            yield Move(f"the gateway is asked: {outcome}", replace(state, ledger=outcome, answer=outcome))
        if state.ledger and state.answer is None:
            heard = "charged" if state.ledger == "charged" else "declined"
            yield Move("a worker asks again", replace(state, answer=heard))
    if state.answer:
        yield Move("the worker with the answer dies", replace(state, answer=None))
    if at is At.EXECUTING and state.answer == "charged":
        yield Move("payment completes", state.move(PAYMENT, At.COMPLETED, PAYMENT.success, answer=None))
    if at is At.EXECUTING and state.answer == "declined":
        yield Move("payment refuses", state.move(PAYMENT, At.FAILED, PAYMENT.refusal, answer=None))
    yield from _giving_up(state, at, variant)


def _giving_up(state: State, at: At | None, variant: Variant) -> LogDeltas:
    failed = state.move(PAYMENT, At.FAILED, PAYMENT.refusal)
    if variant is Variant.GIVE_UP_WITHOUT_VOID:
        if at is At.EXECUTING:
            yield Move("payment gives up", failed)
    elif variant is Variant.VOID_BEFORE_POSITION:
        if at is At.EXECUTING and state.ledger != "voided":
            yield Move("the gateway voids", replace(state, ledger="voided"))
        if at is At.EXECUTING and state.ledger == "voided":
            yield Move("payment gives up", failed)
    else:
        if at is At.EXECUTING:
            yield Move("payment begins to give up", state.move(PAYMENT, At.VOIDING))
        overtaken = variant is Variant.VOID_REGARDLESS and at is At.COMPLETED
        if (at is At.VOIDING or overtaken) and state.ledger != "voided":
            yield Move("the gateway voids", replace(state, ledger="voided"))
        if at is At.VOIDING and state.ledger == "voided":
            yield Move("payment gives up", failed)


def _aborted(state: State, step: Step, variant: Variant) -> LogDeltas:
    fenceable = {None, At.EXECUTING} if variant is Variant.FENCE_CLAIMED else {None}
    if ABORT in state.sent and state.at(step) in fenceable:
        yield Move(f"{step.name} is fenced by the abort", state.move(step, At.FENCED, step.refusal))


def _back(state: State, step: Step, variant: Variant) -> LogDeltas:
    at = state.at(step)
    for cause in state.sent.intersection(step.undone_on):
        if at is None:
            told = () if variant is Variant.FENCE_SILENT else (step.undone,)
            yield Move(f"{step.name} is fenced by {cause}", state.move(step, At.FENCED, *told))
        elif at is At.COMPLETED and step is PAYMENT:
            yield Move(f"payment begins to refund on {cause}", state.move(step, At.COMPENSATING))
        elif at is At.COMPLETED:
            yield Move(f"{step.name} compensates on {cause}", state.move(step, At.COMPENSATED, step.undone))
    if at is At.COMPENSATING and state.ledger != "voided":
        yield Move("the gateway gives the money back", replace(state, ledger="voided"))
    if at is At.COMPENSATING and state.ledger == "voided":
        yield Move("payment compensates", state.move(step, At.COMPENSATED, step.undone))


def _end(state: State, step: Step, variant: Variant) -> LogDeltas:
    if state.at(step) is not At.COMPLETED:
        return
    if FULFILLED in state.sent:
        yield Move(f"{step.name} is confirmed", state.move(step, At.CONFIRMED))
    if variant is Variant.UNILATERAL and step.undone:
        book = {"ledger": "voided"} if step is PAYMENT else {}
        yield Move(f"{step.name} compensates by itself", state.move(step, At.COMPENSATED, step.undone, **book))


UNDOING = {At.COMPENSATING, At.COMPENSATED}


def fault_of(before: State, after: State) -> str | None:
    """Return the rule that a move breaks."""
    if {FULFILLED, FAILED} <= after.sent:
        return "both ends"
    if FULFILLED in after.sent and UNDOING & set(after.last):
        return "fulfilled, yet something was undone"
    if after.at(PAYMENT) in (At.COMPLETED, At.CONFIRMED) and after.ledger == "voided":
        return "payment stands, and its money was voided"
    for index, (was, now) in enumerate(zip(before.last, after.last, strict=True)):
        if was is now:
            continue
        if now in UNDOING and At.COMPLETED in after.last[index + 1 :]:
            return "undone before a later step"
        if now is At.COMPLETED and UNDOING & set(after.last[:index]):
            return "completed after an earlier step was undone"
    return None


def fault_at_rest(state: State) -> str | None:
    """Return what is wrong with a state in which nothing more will happen by itself."""
    if FULFILLED in state.sent:
        is_whole = set(state.last) == {At.CONFIRMED} and state.ledger == "charged"
        return None if is_whole else "at rest, fulfilled, but not everywhere"
    if FAILED not in state.sent:
        return "at rest without an end"
    if At.COMPLETED in state.last:
        return "at rest, failed, and a step left standing"
    return "at rest, failed, and the money kept" if state.ledger == "charged" else None


def explore(variant: Variant) -> Exploration:
    """Visit every state that can be reached, the nearest first."""
    found, ways = Exploration(), Ways(State())
    for state in ways:
        following = [move for move in moves(state, variant) if move.after != state]
        if all(move.after.unread > state.unread or move.text == ABORTED for move in following):
            found.at_rest += 1
            ways.note(found.faults, fault_at_rest(state), state)
        for move in following:
            found.transitions |= _changes(state, move.after)
            ways.add(move.after, before=state, by=move.text)
            ways.note(found.faults, fault_of(state, move.after), state, move.text)
    found.states = len(ways)
    return found


def _changes(before: State, after: State) -> set[tuple[At | None, At]]:
    return {(was, now) for was, now in zip(before.last, after.last, strict=True) if was is not now and now}
