"""A coordinator's plan is explored: sound ones are proved, and each design fault is found with its cure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ConfigDict

from examples.orchestrated.demo import DEMO
from tests.choreography_model import BAD, GOOD, START, Steps, step
from tests.example_sagas.drawn import services_of
from tests.example_sagas.orchestrated_travel import orchestrated_services, parallel_services
from tests.example_sagas.travel import Script
from tests.unit.checker.shapes import LINE
from toolkit import Event, Parallel, SagaOrchestrator, SagaStep, Service
from toolkit.checker.check import SagaReport, check
from toolkit.checker.findings import Finding
from toolkit.declaration.contract import Contract

#: Steps of which each takes the starting event, so that a plan may ask them in any order.
ANY_ORDER: Steps = {
    "pack": step(START, "Packed", "NotPacked", "NotShipped", "Unpacked"),
    "mail": step(START, "Mailed"),
    "pay": step(START, "Paid", "NotPaid", "NotShipped", "Refunded"),
    "ship": step(START, GOOD, "NotShipped"),
    "notify": step("NotPacked|Unpacked|NotPaid|Refunded|NotShipped", BAD),
}


NOTIFY = SagaStep("notify")


def ask(name: str, *, timeout: timedelta | None = timedelta(minutes=1)) -> SagaStep:
    """Return a step that takes an event which the coordinator builds."""
    return SagaStep(name, action=lambda received: received[Event], timeout=timeout)


@dataclass(frozen=True)
class Desk:
    """A drawing, and what its coordinator asks; `owner` has the events that no step emits."""

    steps: Steps
    plan: Sequence[SagaStep | Parallel] | Callable[[Any], Sequence[SagaStep | Parallel]]
    failed_end: SagaStep | None = NOTIFY
    owner: str = "client"
    examples: Sequence[dict[str, Any]] = ({"deal_id": "deal-1"},)

    def services(self) -> list[Service]:
        """Return the services of the steps, and the coordinator's."""
        services = services_of(self.steps, others=self.owner)
        (saga,) = services[0].sagas
        saga.starts_with.model_config = ConfigDict(json_schema_extra={"examples": [*self.examples]})
        plan = self.plan if callable(self.plan) else lambda data: self.plan
        body = {"define_steps": lambda _, data: plan(data), "failed_end": self.failed_end}
        kind: Any = type("Desk", (SagaOrchestrator,), body, saga=saga)
        return [*services, Service(name="desk", orchestrators=[kind])]

    def reports(self) -> list[SagaReport]:
        """Return a report for each plan."""
        return list(check(self.services()))


IN_LINE = [SagaStep(name, timeout=timedelta(minutes=1)) for name in ("reserve", "pay", "ship")]
SURE_END = ANY_ORDER | {"ship": step(START, GOOD)}
SURE = SURE_END | {"pay": step(START, "Paid")}
OWN = {name: each for name, each in ANY_ORDER.items() if name != "notify"} | {"ship": step(START, "Shipped")}

SOUND = {
    "in a line": Desk(LINE, IN_LINE),
    "without timeouts": Desk(LINE, [SagaStep(each.name) for each in IN_LINE]),
    "in parallel": Desk(ANY_ORDER, [Parallel(ask("pack"), ask("pay")), ask("ship")]),
    "what is sure comes last": Desk(SURE_END, [ask("pack"), ask("pay"), ask("mail"), ask("ship")]),
    "nothing may refuse": Desk(SURE, [ask("pay"), ask("mail"), ask("ship")]),
    "both ends are the coordinator's": Desk(OWN, [ask("pay"), ask("pack"), ask("ship")], None, owner="desk"),
}

#: The desk, the rule that is broken, the function to change and its service, and the cure.
FAULTS: dict[str, tuple[Desk, str, str, str]] = {
    "a step before one that may refuse can't be undone": (
        Desk(LINE | {"pay": step("Reserved", "Paid", "NotPaid")}, IN_LINE),
        "left standing", "pay (pay)", "Give pay a compensation: @….compensation(of=pay)",
    ),
    "a step that can't be undone comes too early": (
        Desk(ANY_ORDER, [ask("mail"), ask("pay"), ask("ship")]),
        "left standing", "mail (mail)",
        "Give mail a compensation: @….compensation(of=mail), or let define_steps ask it after pay",
    ),
    "one of two parallel steps can't be undone": (
        Desk(ANY_ORDER, [Parallel(ask("mail"), ask("pay")), ask("ship")]),
        "left standing", "mail (mail)",
        "Give mail a compensation: @….compensation(of=mail), or let define_steps ask it after pay",
    ),
    "the step that completes the saga is not the last": (
        Desk(ANY_ORDER, [ask("ship"), ask("pay")]),
        "completed in part", "define_steps (desk)",
        "Ask ship last, and by itself: nothing can undo a saga that has completed",
    ),
    "the step that completes the saga is one of two": (
        Desk(ANY_ORDER, [ask("pack"), Parallel(ask("pay"), ask("ship"))]),
        "completed in part", "define_steps (desk)",
        "Ask ship last, and by itself: nothing can undo a saga that has completed",
    ),
    "no step completes the saga": (
        Desk(LINE, IN_LINE[:2]),
        "no end", "define_steps (desk)",
        'Ask the step last that returns Good, or declare Good with owner="desk"',
    ),
    "a planned step fails the saga": (
        Desk(ANY_ORDER | {"notify": step(START, BAD), "regret": step("NotPaid|Refunded|NotShipped", "Regretted")},
             [ask("pay"), ask("notify"), ask("ship")], SagaStep("regret")),
        "left standing", "define_steps (desk)",
        "Leave notify out: name it as failed_end, which is asked once all is undone",
    ),
    "the failed end may refuse": (
        Desk(LINE | {"notify": replace(LINE["notify"], no="NotTold")}, IN_LINE),
        "no end", "notify (notify)", "Let notify return Bad alone, and raise what may be tried again",
    ),
    "the failed end emits another event": (
        Desk(LINE | {"notify": replace(LINE["notify"], ok="Noted")}, IN_LINE),
        "no end", "notify (notify)", "Let notify return Bad",
    ),
    "the failed end completes the saga": (
        Desk(LINE | {"notify": replace(LINE["notify"], ok=GOOD)}, IN_LINE),
        "completed in part", "notify (notify)", "Let notify return Bad",
    ),
    "the failed end does not take what was undone last": (
        Desk(LINE | {"notify": step("NotReserved", BAD)}, IN_LINE),
        "no end", "notify (notify)", "Let notify run on Released, too, or give failed_end an action",
    ),
    "a step does not take the success before": (
        Desk(LINE, [ask("reserve"), ask("ship"), SagaStep("pay")]),
        "untaken event", "define_steps (desk)",
        'Build that event: SagaStep("pay", action=lambda received: Reserved(…))',
    ),
    "a step takes two events": (
        Desk(LINE | {"ship": step("Reserved & Paid", GOOD, "NotShipped")}, IN_LINE),
        "asked join", "ship (ship)", "Let it take one: the coordinator joins steps itself, by Parallel",
    ),
    "a step is not declared": (
        Desk(LINE, [*IN_LINE[:2], SagaStep("chip")]),
        "unknown step", "define_steps (desk)", "Name a step, or check its service, too",
    ),
    "a step is there twice": (
        Desk(LINE, [IN_LINE[0], *IN_LINE]),
        "no plan", "define_steps (desk)", "Give each step once",
    ),
    "the event that starts the saga has no example": (
        Desk(LINE, IN_LINE, examples=()),
        "no plan", "define_steps (desk)",
        'Document one: in Start, model_config = {"json_schema_extra": {"examples": [{…}]}}',
    ),
    "an example is invalid": (
        Desk(LINE, IN_LINE, examples=[{"deal_id": 7}]),
        "no plan", "define_steps (desk)", "Correct the example",
    ),
    "the plan can't be made": (
        Desk(LINE, lambda data: IN_LINE[data.deal_id]),
        "no plan", "define_steps (desk)", "Let it return the steps for each valid Start",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_each_interleaving_of_a_sound_plan_holds(name: str) -> None:
    (report,) = SOUND[name].reports()

    assert report.findings == ()
    assert report.is_proved


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plans_fault_is_found_with_its_cure(fault: str) -> None:
    desk, rule, place, cure = FAULTS[fault]

    found = [each for report in desk.reports() for each in report.findings]

    assert [(f"{each.function} ({each.service})", each.cure) for each in found if each.rule == rule] == [(place, cure)]
    assert not any("fault of the toolkit" in each.cure for each in found)


def test_the_coordinated_sagas_that_ship_are_proved() -> None:
    (order,) = check(DEMO.services)
    trips = [report for kind in (orchestrated_services, parallel_services) for report in check(kind(Script()))]

    assert (order.coordinator, order.is_proved) == ("fulfillment", True)
    assert [each.is_proved for each in trips] == [True, True]
    assert max(each.exploration.states for each in (order, *trips)) < 1_000


def test_a_story_tells_what_the_coordinator_does() -> None:
    desk, rule, *_ = FAULTS["a step before one that may refuse can't be undone"]

    (found,) = findings(desk, rule)

    assert found.message == "notify (notify) fails the saga by Bad, and pay (pay) still stands"
    assert found.story == (
        "desk asks reserve",
        "reserve completes",
        "desk asks pay",
        "pay completes",
        "desk asks ship",
        "ship refuses with NotShipped",
        "desk has reserve undone",
        "undo_reserve undoes reserve",
        "desk asks notify",
        "notify completes",
    )


def test_a_story_names_an_end_that_is_foreign() -> None:
    desk, rule, *_ = FAULTS["no step completes the saga"]

    (found,) = findings(desk, rule)

    assert found.message == "all steps are done, the last one has not emitted Good, and desk may not"
    assert found.story[-1] == "desk can't end the saga by Good, an event of another service"


def test_each_plan_of_the_examples_is_explored() -> None:
    def plan(data: Any) -> list[SagaStep]:
        return IN_LINE if data.deal_id != "small" else [ask("pay"), ask("ship")]

    steps = LINE | {"notify": step("NotReserved|Released|NotPaid|Refunded", BAD)}
    examples = [{"deal_id": each} for each in ("deal-1", "small", "deal-2")]

    line, small = Desk(steps, plan, examples=examples).reports()

    assert (line.plan.examples, small.plan.examples) == ((1, 3), (2,))
    assert (line.is_proved, small.is_proved) == (True, True)
    assert small.exploration.states < line.exploration.states


def test_a_fault_of_one_example_is_told_once() -> None:
    def plan(data: Any) -> list[SagaStep]:
        return IN_LINE if data.deal_id != "small" else [ask("mail"), ask("pay")]

    examples = [{"deal_id": "deal-1"}, {"deal_id": "small"}]

    line, small = Desk(LINE, plan, examples=examples).reports()

    assert (line.is_proved, small.is_proved) == (True, False)
    assert [each.message for each in small.findings] == ["it asks mail, and no service declares this step of deal"]


def test_contracts_say_what_the_declarations_say() -> None:
    desk, *_ = FAULTS["one of two parallel steps can't be undone"]
    services = desk.services()
    contracts = [Contract.model_validate_json(Contract.of(each).model_dump_json()) for each in services]

    (declared,), (read,) = check(services), check(contracts)

    assert read.findings == declared.findings
    assert read.exploration.states == declared.exploration.states


def test_an_unfinished_plan_proves_nothing() -> None:
    (report,) = check(Desk(LINE, IN_LINE).services(), most_states=10)

    assert (report.is_unfinished, report.is_proved, report.findings) == (True, False, ())


def test_a_plan_of_another_service_is_unknown() -> None:
    services = Desk(LINE, IN_LINE).services()[:-1]

    (report,) = check([Contract.of(each, asked_by={"deal": "desk"}) for each in services])

    assert (report.coordinator, report.plan, report.is_proved) == ("desk", None, False)


def findings(desk: Desk, rule: str) -> list[Finding]:
    return [each for report in desk.reports() for each in report.findings if each.rule == rule]
