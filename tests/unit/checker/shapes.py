"""Sound shapes of sagas, as drawings: a line, branches with and without a join, people, and a coordinator."""

from __future__ import annotations

from tests.choreography_model import BAD, GOOD, START, Step, Steps, step
from toolkit.checker.graph import GraphStep, SagaGraph, Undoing

LINE: Steps = {
    "reserve": step(START, "Reserved", "NotReserved", "NotPaid|Refunded", "Released"),
    "pay": step("Reserved", "Paid", "NotPaid", "NotShipped", "Refunded"),
    "ship": step("Paid", GOOD, "NotShipped"),
    "notify": step("NotReserved|Released", BAD),
}
#: The bonus can't refuse, and is undone before the step that led to it.
SURE_BRANCH: Steps = {
    "order": step(START, "Ordered", "NotOrdered", "BonusRevoked", "OrderRevoked"),
    "ship": step("Ordered", GOOD, "NotShipped"),
    "give_bonus": step("Ordered", "BonusGiven", "", "NotShipped", "BonusRevoked"),
    "notify": step("NotOrdered|OrderRevoked", BAD),
}
#: Hotel, flight and car at once; the payment joins them, a refusal undoes all, and the end waits for each.
TRIP: Steps = {
    "hotel": step(START, "HotelBooked", "HotelFull", "FlightFull|CarFull|NotPaid", "HotelCancelled"),
    "flight": step(START, "FlightBooked", "FlightFull", "HotelFull|CarFull|NotPaid", "FlightCancelled"),
    "car": step(START, "CarBooked", "CarFull", "HotelFull|FlightFull|NotPaid", "CarCancelled"),
    "pay": step("HotelBooked & FlightBooked & CarBooked", GOOD, "NotPaid"),
    "fail": step("HotelFull|HotelCancelled & FlightFull|FlightCancelled & CarFull|CarCancelled", BAD),
}
#: A, then B and C at once, then D: A's compensation is a join, too.
DIAMOND: Steps = {
    "a": step(START, "A", "NoA", "NoB|UndoneB & NoC|UndoneC", "UndoneA"),
    "b": step("A", "B", "NoB", "NoC|NoD", "UndoneB"),
    "c": step("A", "C", "NoC", "NoB|NoD", "UndoneC"),
    "d": step("B & C", GOOD, "NoD", has_deadline=True),
    "fail": step("NoA|UndoneA", BAD),
}
#: A branch of two steps beside a branch of one.
LONG_BRANCH: Steps = {
    "b1": step(START, "B1", "NoB1", "NoB2|UndoneB2", "UndoneB1"),
    "b2": step("B1", "B2", "NoB2", "NoC|NoD", "UndoneB2"),
    "c": step(START, "C", "NoC", "NoB1|UndoneB1|NoD", "UndoneC"),
    "d": step("B2 & C", GOOD, "NoD"),
    "fail": step("NoB1|UndoneB1 & NoC|UndoneC", BAD),
}
#: A quote waits for a person, with a deadline; the person may also say yes and no, or too late.
APPROVAL: Steps = {
    "quote": step(START, "Quoted", "NoQuote", "Rejected|ApprovalRevoked", "QuoteWithdrawn"),
    "decide": step("Quoted & Yes|No", "Approved", "Rejected", "NotOrdered", "ApprovalRevoked", has_deadline=True),
    "order": step("Approved", GOOD, "NotOrdered"),
    "fail": step("NoQuote|QuoteWithdrawn", BAD),
}
PEOPLE = ("Yes", "No")
#: A coordinator is a participant whose steps emit commands; each is undone after its command was refused or undone.
ORCHESTRATED: Steps = {
    "reserve": step("Reserve", "Reserved", "NotReserved", "Release", "Released"),
    "pay": step("Pay", "Paid", "NotPaid", "Refund", "Refunded"),
    "confirm": step("Confirm", "Confirmed", "NotConfirmed"),
    "ask_reserve": step(START, "Reserve", "", "NotReserved|Released", "NothingLeft"),
    "ask_pay": step(f"{START} & Reserved", "Pay", "", "NotPaid|Refunded", "Release"),
    "ask_confirm": step(f"{START} & Paid", "Confirm", "", "NotConfirmed", "Refund"),
    "finish": step("Confirmed", GOOD),
    "fail": step("NothingLeft", BAD),
}
SOUND = {
    "line": LINE,
    "sure branch": SURE_BRANCH,
    "trip": TRIP,
    "diamond": DIAMOND,
    "long branch": LONG_BRANCH,
    "coordinator": ORCHESTRATED,
}


def graph_of_steps(steps: Steps, people: tuple[str, ...] = ()) -> SagaGraph:
    """Return the graph of a drawing, without declarations."""
    return SagaGraph("deal", START, GOOD, BAD, tuple(_step(name, each) for name, each in steps.items()), people)


def _step(name: str, each: Step) -> GraphStep:
    undoing = Undoing(f"undo_{name}", each.undo_on, each.undone) if each.undo_on and each.undone else None
    return GraphStep(
        name=name, service=name, slots=each.on, success=each.ok, refusals=(each.no,) if each.no else (),
        undoing=undoing, has_deadline=each.has_deadline and bool(each.no),
    )  # fmt: skip
