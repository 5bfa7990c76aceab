"""Sagas in flight are explored under a change, as a plain model of it does; within a bound, and service by service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from examples.approval.demo import DEMO as PURCHASE
from examples.orchestrated.demo import DEMO as ORCHESTRATED
from examples.transfer.demo import DEMO as TRANSFER
from examples.travel.demo import DEMO as TRIP
from services.demo import SERVICES
from tests.change_model import Change as Drawn
from tests.choreography_model import BAD, GOOD, START, Steps, step
from tests.example_sagas.drawn import services_of
from tests.unit.checker.shapes import APPROVAL, LINE, PEOPLE, SURE_BRANCH
from tests.unit.checker.test_explorer import STRICTER, near_misses
from tests.unit.compatibility.changes import HARMLESS
from tests.unit.compatibility.seeded import Seed, all_of, event_with, handler_with, runs_on, with_step
from toolkit.checker.moves import Invariant
from toolkit.compatibility.changed_moves import Rollout
from toolkit.compatibility.compare import compare
from toolkit.compatibility.findings import Level
from toolkit.compatibility.in_flight import explore_change
from toolkit.compatibility.releases import Change, release_of
from toolkit.declaration.contract import Contract

SHIPPED = {
    "order": SERVICES,
    "purchase": PURCHASE.services,
    "transfer": TRANSFER.services,
    "trip": TRIP.services,
    "order by a coordinator": ORCHESTRATED.services,
}
#: The line with a step between payment and shipping that may refuse, and the line without the payment.
LONGER: Steps = LINE | {
    "pay": step("Reserved", "Paid", "NotPaid", "NotChecked|Unchecked", "Refunded"),
    "check": step("Paid", "Checked", "NotChecked", "NotShipped", "Unchecked"),
    "ship": step("Checked", GOOD, "NotShipped"),
}
SHORTER: Steps = {
    "reserve": step(START, "Reserved", "NotReserved", "NotShipped", "Released"),
    "ship": step("Reserved", GOOD, "NotShipped"),
    "notify": step("NotReserved|Released", BAD),
}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("is_rolling", [False, True])
def test_each_shipped_saga_ends_under_itself(name: str, is_rolling: bool) -> None:
    contracts = [Contract.of(each) for each in SHIPPED[name]]
    begun = time.monotonic()

    (report,) = compare(contracts, contracts, rollout=Rollout(is_rolling=is_rolling))

    assert report.is_proved, report.findings
    assert report.findings == ()
    assert time.monotonic() - begun < 10


def pairs() -> Iterator[tuple[Steps, Steps]]:
    """Yield sound sagas with each of their near misses, in both directions, and shapes of other lengths."""
    for steps in (LINE, SURE_BRANCH):
        for near in near_misses(steps):
            yield from ((steps, near), (near, steps))
    shapes = (LINE, LONGER, SHORTER)
    yield from ((old, new) for old in shapes for new in shapes if old is not new)


def test_the_explorer_finds_what_the_model_finds() -> None:
    judged = [(Drawn(old, new).faults(), invariants(old, new)) for old, new in pairs()]

    assert len(judged) > 90
    assert sum(1 for faults, _ in judged if faults) > 20
    assert sum(1 for faults, found in judged if not faults and not found) > 20
    assert [faults for faults, found in judged if faults and not found] == []
    assert [found for faults, found in judged if found - STRICTER and not faults] == []


def test_the_story_of_a_change_is_a_shortest_one() -> None:
    lost = LINE | {"pay": replace(LINE["pay"], undo_on=())}

    (found,) = explored(LINE, lost).counterexamples

    assert len(found.story) == min(len(way) for way in Drawn(LINE, lost).faults().values())


def test_a_bounded_exploration_proves_nothing() -> None:
    contracts = [Contract.of(each) for each in SERVICES]

    (report,) = compare(contracts, contracts, most_states=20)

    assert (report.is_unfinished, report.is_proved, report.is_compatible) == (True, False, True)


def test_a_cure_is_no_bad_change() -> None:
    """Sagas that stand still under the old release for ever are not in flight; those before them end."""
    faulty = LINE | {"notify": replace(LINE["notify"], on=(frozenset({"NotReserved"}),))}

    assert invariants(faulty, LINE) == set()


def test_old_and_new_services_side_by_side_are_explored() -> None:
    seed = HARMLESS["a step that can't refuse is put between"]

    (at_once,), (rolling,) = seed.reports(), seed.reports(Rollout(is_rolling=True))

    assert at_once.is_proved
    (left, late) = rolling.findings
    assert (left.rule, late.rule, left.service) == ("left standing", "completed too late", "tax")
    assert "the new release of tax is deployed" in left.story


def test_an_order_of_deployment_rules_out_other_ones() -> None:
    seed = Seed(event_with("PaymentProcessed", version=2))

    ordered = states(seed, Rollout(is_rolling=True, order=("shipping", "payment")))
    free = states(seed, Rollout(is_rolling=True))

    assert ordered < free


def test_a_wait_that_only_a_deadline_ends_is_noted() -> None:
    seed = Seed(
        all_of(
            with_step("fraud", "screen", ("OrderCreated",), "Screened", "FraudSuspected"),
            with_step("fraud", "unscreen", (REFUSALS,), "Unscreened", of="screen"),
            runs_on("send_confirmation", "ShipmentCreated", "Screened"),
            runs_on("cancel_shipment", "NotificationFailed|FraudSuspected"),
            runs_on(
                "send_cancellation_notice", "InventoryReservationFailed|InventoryReleased", "FraudSuspected|Unscreened"
            ),
        )
    )

    (report,) = seed.reports()
    (note,) = report.findings
    (endless,) = Seed(all_of(seed.change, handler_with("send_confirmation", timeout=None))).reports()

    assert (note.rule, note.level, note.function) == ("ends by deadline", Level.NOTE, "send_confirmation")
    assert "ends only by its deadline under the new graph: it waits for Screened, too" in note.message
    assert [each.rule for each in endless.findings] == ["no end"]


REFUSALS = "InventoryReservationFailed|PaymentFailed|ShipmentFailed|NotificationFailed"


def test_a_deadline_that_begins_late_may_never_pass() -> None:
    """A join that has gathered under the old release has no timer; under the new one it has."""
    without = APPROVAL | {"decide": replace(APPROVAL["decide"], has_deadline=False)}

    assert invariants(without, APPROVAL, PEOPLE) == {Invariant.AN_END}
    assert invariants(APPROVAL, without, PEOPLE) >= {Invariant.AN_END}
    assert invariants(APPROVAL, APPROVAL, PEOPLE) == set()


def test_what_a_compensation_does_not_read_may_change() -> None:
    seed = Seed(event_with("PaymentProcessed", version=2, only="payment"))
    unread = Seed(all_of(seed.change, handler_with("refund_payment", original=False)))

    with_original, without = (found(each, "payment") for each in (seed, unread))

    assert with_original == ["version raised"]
    assert without == []


def found(seed: Seed, service: str) -> list[str]:
    """Return the rules of what is found in one service."""
    return [each.rule for report in seed.reports() for each in report.findings if each.service == service
            and each.story == ()]  # fmt: skip


def states(seed: Seed, rollout: Rollout) -> int:
    (report,) = seed.reports(rollout)
    return report.states


def explored(old: Steps, new: Steps, people: tuple[str, ...] = ()):
    return explore_change(change_of(old, new, people), Rollout(), most_states=100_000)


def invariants(old: Steps, new: Steps, people: tuple[str, ...] = ()) -> set[Invariant]:
    return {each.invariant for each in explored(old, new, people).counterexamples}


def change_of(old: Steps, new: Steps, people: tuple[str, ...]) -> Change:
    """Return a change of two drawings; an event that only one of them emits has the same owner in both."""
    owners = {event: name for steps in (old, new) for name, each in steps.items()
              for event in (each.ok, each.no, each.undone) if event}  # fmt: skip
    releases = [release_of([owned(Contract.of(each), owners) for each in services_of(steps, people)], "deal")
                for steps in (old, new)]  # fmt: skip
    assert releases[0]
    assert releases[1]
    return Change(releases[0], releases[1])


def owned(contract: Contract, owners: dict[str, str]) -> Contract:
    events = {
        name: each.model_copy(
            update={"owner": owners.get(name, "client"), "routing_key": f"{owners.get(name, 'client')}.{name}"}
        )
        for name, each in contract.events.items()
    }
    return contract.model_copy(update={"events": events})
