"""Design faults, each in a declared saga: the explorer finds each by a story, and names the declaration to change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.choreography_model import BAD, GOOD, Steps, step
from tests.example_sagas.drawn import services_of
from tests.unit.checker.shapes import APPROVAL, DIAMOND, LINE, ORCHESTRATED, PEOPLE, SURE_BRANCH, TRIP, graph_of_steps
from toolkit.checker.check import check
from toolkit.checker.diagnosis import finding_of
from toolkit.checker.explorer import explore
from toolkit.checker.findings import Finding

#: The drawing, the rule that is broken, the function to change and its service, and the cure.
FAULTS: dict[str, tuple[Steps, str, str, str]] = {
    "the first refusal ends the trip": (
        TRIP | {"fail": step("HotelCancelled|FlightCancelled|CarCancelled", BAD)},
        "no end", "fail (fail)", "Let fail run on HotelFull | FlightFull | CarFull, too",
    ),
    "the end counts only what was undone": (
        TRIP | {"fail": step("HotelCancelled & FlightCancelled & CarCancelled", BAD)},
        "no end", "fail (fail)", "Let fail run on HotelFull | FlightFull | CarFull, too",
    ),
    "a branch does not consume its sibling's refusal": (
        TRIP | {"car": step("Start", "CarBooked", "CarFull", "FlightFull|NotPaid", "CarCancelled")},
        "no end", "undo_car (car)", "Let undo_car run on HotelFull, too",
    ),
    "the end does not wait for a branch": (
        TRIP | {"pay": step("HotelBooked & FlightBooked", GOOD, "NotPaid")},
        "completed in part", "pay (pay)", "Let pay wait for car, too: give it a parameter of the type CarBooked",
    ),
    "a compensation does not wait for both": (
        DIAMOND | {"a": step("Start", "A", "NoA", "NoB|UndoneB|NoC|UndoneC", "UndoneA")},
        "undone too early", "undo_a (a)",
        "Let undo_a take NoB | UndoneB in a parameter of its own: it has to wait for b in any case",
    ),
    "all is undone at once": (
        ORCHESTRATED | {"ask_pay": replace(ORCHESTRATED["ask_pay"], undo_on=(frozenset({"NotPaid", "NotConfirmed"}),))},
        "undone too early", "undo_ask_pay (ask_pay)", "Let undo_ask_pay run on Refunded instead of NotConfirmed",
    ),
    "a compensation runs before the next one": (
        LINE | {"reserve": replace(LINE["reserve"], undo_on=(frozenset({"NotPaid", "NotShipped"}),))},
        "undone too early", "undo_reserve (reserve)", "Let undo_reserve run on Refunded instead of NotShipped",
    ),
    "the saga fails before all is undone": (
        LINE | {"notify": step("NotReserved|Released|NotPaid", BAD)},
        "left standing", "notify (notify)", "Let notify run on Released, and no more on NotPaid",
    ),
    "a refusal leads nowhere": (
        LINE | {"notify": step("NotReserved", BAD)},
        "no end", "notify (notify)", "Let notify run on Released, too",
    ),
    "a step has no compensation": (
        LINE | {"pay": step("Reserved", "Paid", "NotPaid")},
        "no end", "pay (pay)", "Give pay a compensation that runs on NotShipped: @….compensation(of=pay)",
    ),
    "two steps end the saga": (
        LINE | {"deliver": step("Paid", GOOD)},
        "second end", "deliver (deliver)", "Let one step end the saga, after all others: it needs a parameter for each",
    ),
    "the end does not wait for a screening": (
        SURE_BRANCH | {"screen": step("Ordered", "Screened", "FraudSuspected", "NotShipped", "ScreeningClosed")},
        "completed in part", "ship (ship)", "Let ship wait for screen, too: give it a parameter of the type Screened",
    ),
    "no step ends the saga": (
        LINE | {"ship": step("Paid", "Shipped", "NotShipped")},
        "no end", "ship (ship)", "Let a step run on Shipped, and the last one return Good",
    ),
    "a refusal leads to the completed end": (
        LINE | {"bill": step("NotPaid", "Billed", "NotBilled", "NotShipped", "BillRevoked"),
                "ship": step("Paid|Billed", GOOD, "NotShipped")},
        "completed in part", "ship (ship)",
        "A saga with a refusal fails: let no step on the way to Good run on NotPaid",
    ),
    "a gate waits for an alternative": (
        LINE | {"ship": step("Paid & Reserved & NotPaid", GOOD, "NotShipped")},
        "no end", "ship (ship)", "Let a step return NotPaid in this story, or let ship wait for less",
    ),
    "a branch does not consume what a deadline leads to": (
        DIAMOND | {"c": step("A", "C", "NoC", "NoB", "UndoneC")},
        "no end", "undo_c (c)", "Let undo_c run on UndoneB, too",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_design_fault_is_found_with_its_cure(fault: str) -> None:
    steps, rule, place, cure = FAULTS[fault]

    (report,) = check(services_of(steps))

    found = [(f"{each.function} ({each.service})", each.cure) for each in report.findings if each.rule == rule]
    assert found == [(place, cure)]


def test_a_person_who_never_answers_is_found() -> None:
    endless = APPROVAL | {"decide": replace(APPROVAL["decide"], has_deadline=False)}

    (report,) = check(services_of(endless, PEOPLE))

    (found,) = report.findings
    assert (found.rule, found.story) == ("no end", ("quote completes",))
    assert found.cure == "No | Yes may never come: give decide a timeout, and a refusal to return then"


def test_a_story_has_one_sentence_for_each_move() -> None:
    steps, *_ = FAULTS["a branch does not consume its sibling's refusal"]

    (found,) = findings(steps)

    assert found.story == ("hotel refuses with HotelFull", "HotelFull fences flight", "car completes")
    assert str(found) == (
        "no end: nothing more happens, and the saga has not ended: car (car) still stands "
        "(hotel refuses with HotelFull; HotelFull fences flight; car completes). Let undo_car run on HotelFull, too."
    )


def test_a_story_names_what_undoes_and_aborts() -> None:
    steps, *_ = FAULTS["a compensation runs before the next one"]

    early, late = findings(steps)

    assert early.story[-1] == "undo_reserve undoes reserve on NotShipped"
    assert late.story[1:3] == ("an abort is requested", "the abort fences ship, which refuses with NotShipped")
    assert late.message == "pay (pay) completes after undo_reserve (reserve) has undone reserve, which it follows from"


def findings(steps: Steps) -> list[Finding]:
    explored = explore(graph_of_steps(steps))
    return [finding_of(explored, each) for each in explored.counterexamples]
