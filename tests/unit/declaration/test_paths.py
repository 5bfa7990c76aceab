"""The static rules agree with a model that tries each interleaving, on sound sagas and on their mutations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.choreography_model import BAD, GOOD, START, Step, Steps, faults, step
from toolkit.checker.rules import RuleViolation, check
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract, EventContract, HandlerContract, SagaContract

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
#: A second payment step runs where the first one refuses: this is one branch, since a step either succeeds or refuses.
SECOND_TRY: Steps = {
    "pay": step(START, "Paid", "CardRefused", "NotShipped", "Refunded"),
    "pay_later": step("CardRefused", "Billed", "NotBilled", "NotShipped", "BillRevoked"),
    "ship": step("Paid|Billed", GOOD, "NotShipped"),
    "notify": step("NotBilled|Refunded|BillRevoked", BAD),
}
#: The rules that the model does not check: it considers neither when an end comes nor why a step waits for an event.
STRICTER = {"early end", "second end", "unemitted event", "unreachable"}

SAGA = SagaContract(name="deal", id_field="deal_id", starts_with=START, completes_with=GOOD, fails_with=BAD)


@pytest.mark.parametrize("steps", [LINE, SURE_BRANCH], ids=["line", "sure branch"])
def test_the_rules_find_what_the_model_finds(steps: Steps) -> None:
    compared = [two for one in near_misses(steps) for two in near_misses(one)]

    judged = [(faults(each), rules_broken(each)) for each in compared]

    assert len(judged) > 400
    assert [fault for fault, broken in judged if fault and not broken] == []
    assert [broken for fault, broken in judged if broken - STRICTER and not fault] == []


@pytest.mark.parametrize("steps", [LINE, SURE_BRANCH], ids=["line", "sure branch"])
def test_a_sound_saga_has_no_findings(steps: Steps) -> None:
    assert faults(steps) == {}
    assert findings(steps) == []


def test_a_second_try_is_no_fork() -> None:
    assert "unawaited step" not in rules_broken(SECOND_TRY)


def test_an_end_that_awaits_no_screening_is_found() -> None:
    steps = SURE_BRANCH | {
        "screen": step("Ordered", "Screened", "FraudSuspected", "NotShipped", "ScreeningClosed"),
        "order": replace(SURE_BRANCH["order"], undo_on=frozenset({"BonusRevoked", "FraudSuspected"})),
    }

    found = [str(each) for each in findings(steps) if each.rule == "unawaited step"]

    assert found == [
        "unawaited step: Ordered starts two branches, and ship (ship) may end the saga deal by Good before screen "
        "(screen) has answered; FraudSuspected would be too late to undo anything. "
        "Chain the branches, so that the path to ship leads through Screened, or let screen return no refusal."
    ]
    assert any("failed" in fault or "both" in fault for fault in faults(steps))


def test_two_branches_that_end_one_saga_are_found() -> None:
    steps = LINE | {"deliver": step("Paid", GOOD)}

    assert "second end: ship (ship) and deliver (deliver) both run in the saga deal, and each ends it" in lines(steps)


def test_branches_that_ignore_a_siblings_refusal_are_found() -> None:
    """Sagas with branches break these rules most easily, as far as they can be declared without joins."""
    trip = {
        "hotel": step(START, "HotelBooked", "HotelFull", "FlightFull|CarFull", "HotelCancelled"),
        "flight": step(START, "FlightBooked", "FlightFull", "HotelFull|CarFull", "FlightCancelled"),
        "car": step(START, "CarBooked", "CarFull", "FlightFull", "CarCancelled"),
        "pay": step("HotelBooked", GOOD),
        "fail": step("HotelCancelled|FlightCancelled|CarCancelled", BAD),
    }

    broken = rules_broken(trip)

    assert {"uncompensated step", "unawaited step", "early end"} <= broken
    assert "uncompensated step: car (car) is still done after HotelFull" in lines(trip)


def test_undoing_all_at_once_is_found() -> None:
    hasty = LINE | {"reserve": replace(LINE["reserve"], undo_on=frozenset({"NotPaid", "NotShipped"}))}

    assert (
        "early compensation: after NotShipped, undo_reserve (reserve) may undo reserve before undo_pay (pay) has "
        "undone pay, which it led to"
    ) in lines(hasty)


def test_an_end_before_all_is_undone_is_found() -> None:
    hasty = LINE | {"notify": step("NotReserved|Released|NotPaid", BAD)}

    assert lines(hasty) == ["early end: after NotPaid, Bad may end the saga before undo_reserve (reserve) has run"]


def test_a_saga_that_never_completes_is_found() -> None:
    endless = LINE | {"ship": replace(LINE["ship"], ok="Shipped")}

    assert "unreached end: nothing leads from Start to Good, which completes the saga deal" in lines(endless)


def near_misses(steps: Steps) -> Iterator[Steps]:
    """Yield the saga with each single edge removed, added or moved, and each refusal added or removed."""
    consumed = [event for each in steps.values() for event in (each.no, each.undone) if event]
    successes = [START, *(each.ok for each in steps.values() if not each.ends)]
    for name, each in steps.items():
        changed = [replace(each, undo_on=each.undo_on ^ {event}) for event in consumed if each.undone]
        changed += [replace(each, on=frozenset({event})) for event in successes if each.ok not in (BAD, event)]
        changed += [replace(each, on=each.on ^ {event}) for event in consumed if each.ok == BAD]
        changed += [replace(each, no="" if each.no else f"No{name}")] if each.ok != BAD else []
        yield from (steps | {name: one} for one in changed)


def findings(steps: Steps) -> list[RuleViolation]:
    return check(Choreography([_contract(name, each) for name, each in steps.items()]))


def rules_broken(steps: Steps) -> set[str]:
    return {finding.rule for finding in findings(steps)}


def lines(steps: Steps) -> list[str]:
    return [f"{finding.rule}: {finding.message}" for finding in findings(steps)]


def _contract(name: str, each: Step) -> Contract:
    handlers = [_handler(name, None, each.on, each.ok, each.no)]
    if each.undone and each.undo_on:
        handlers.append(_handler(f"undo_{name}", name, each.undo_on, each.undone, ""))
    events = {event: _event(event, name) for event in (each.ok, each.no, each.undone) if event}
    return Contract(service=name, toolkit_version="", sagas=(SAGA,), handlers=tuple(handlers), events=events)


def _handler(name: str, of: str | None, on: frozenset[str], success: str, refusal: str) -> HandlerContract:
    return HandlerContract(
        name=name,
        kind="compensation" if of else "step",
        of=of,
        saga="deal",
        triggers=tuple(sorted(on)),
        success=success,
        refusals=(refusal,) if refusal else (),
        timeout=None,
        attempts=1,
        external=False,
        description="",
    )


def _event(name: str, owner: str) -> EventContract:
    facts = {"name": name, "owner": owner, "version": 1, "routing_key": f"{owner}.{name}", "optional": True}
    return EventContract(**facts, description="", json_schema={}, sensitive=(), example={})
