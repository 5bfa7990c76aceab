"""The purchase in one process and over RabbitMQ: which answers count, and what people see of an open question."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from examples.approval.accounts import CHECKS
from examples.approval.demo import NO, YES
from examples.approval.events import Approved, PurchaseRequested
from tests.conformance.world import message
from tests.console.one_service import local_console
from tests.eventually import eventually
from tests.examples.demos import DEMOS
from tests.examples.running import PATIENCE, Running
from toolkit.api import Access, ApiContext, api_routes, application
from toolkit.checker.check import check
from toolkit.cli.demonstration import Demo, End, Scenario
from toolkit.cli.demonstration_answers import play
from toolkit.clock import SystemClock
from toolkit.configuration.tokens import TokenDigest
from toolkit.declaration.contract import Contract
from toolkit.declaration.events import SagaState
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED
EVERYWHERE = pytest.mark.parametrize("running", ["embedded", "sqlite", "postgresql"], indirect=True)
TOKEN = "open-sesame-to-the-desk"


@pytest.fixture
def demo() -> Demo:
    """The example, whose desk waits for days: also on a busy machine the answers are in time."""
    return replace(DEMOS["approval"], settings={})


def purchase(purchase_id: str, department: str = "WORKSHOP") -> PurchaseRequested:
    return PurchaseRequested(
        purchase_id=purchase_id, employee="ADA", department=department, item="LATHE", price=450000
    )  # THRIFTY has 1000000


def scenario(purchase_id: str, *answers, **facts) -> Scenario:
    return Scenario(purchase_id, "", End(None), answers=answers, **facts)


def of_a_client(answer: Approved, **facts) -> WireMessage:
    """Return an answer as any AMQP client publishes it."""
    return message(answer, answer.purchase_id, saga_type="purchase", event_id=new_id(), **facts)


async def log(running: Running, purchase_id: str) -> list[tuple[str, str | None]]:
    """Return the states of the step that asks, notes included, with the event of each."""
    entries = await running.world.log("approvals", purchase_id)
    return [(each.to_state, each.event_type) for each in entries if each.step == "decide_purchase"]


def test_no_interleaving_with_an_answer_breaks_it(demo: Demo):
    (report,) = check(demo.services)

    assert (report.is_proved, report.exploration.states) == (True, 41)


@EVERYWHERE
async def test_purchases_end_as_the_approver_answers(running: Running):
    async with running.checked() as checks:
        played = await asyncio.gather(
            running.play(scenario("yes", YES)),
            running.play(scenario("no", NO)),
            running.play(scenario("yes-no", YES, NO)),
            running.play(scenario("no-yes", NO, YES)),
        )
        timelines = await running.ended("yes", "no", "yes-no", "no-yes")

    assert {each.saga_id: each.state for each in timelines.values()} == {
        "yes": COMPLETED,
        "no": FAILED,
        "yes-no": COMPLETED,
        "no-yes": FAILED,
    }
    assert [each.is_right for answers in played for each in answers] == [True] * 6
    disputed = [each.outcome for answers in played[2:] for each in answers]
    assert [(each.decided_with, each.decided_by) for each in disputed] == [
        *[("Approved", "grace")] * 2,
        *[("Declined", "linus")] * 2,
    ]
    assert disputed[0].decided_at == disputed[1].decided_at
    assert await running.violations() == []
    assert [each for each in await checks.results({}) if not each.holds] == []


@EVERYWHERE
async def test_an_early_answer_waits_for_its_request(running: Running):
    await running.publish(of_a_client(Approved(purchase_id="early")))
    await eventually(lambda: log(running, "early"), within=PATIENCE.total_seconds())
    waiting = await log(running, "early")

    await running.send("early", purchase("early"))
    timelines = await running.ended("early")

    assert waiting == [("gathering", "Approved")]
    assert timelines["early"].state is COMPLETED
    assert (await log(running, "early"))[:2] == [("gathering", "Approved"), ("completed", "BudgetReserved")]
    assert await running.violations() == []


@pytest.mark.parametrize("demo", [DEMOS["approval"]], ids=["ten-seconds"])
@EVERYWHERE
async def test_late_answers_change_nothing_after_the_deadline(running: Running):
    (late,) = await running.play(scenario("late", replace(YES, is_late=True)))
    await running.publish(of_a_client(Approved(purchase_id="late")))
    await eventually(lambda: is_ignored(running, "late"), within=PATIENCE.total_seconds())
    timelines = await running.ended("late")

    why = "its deadline passed; waited for Approved or Declined (answer)"
    assert late.outcome.is_refused
    assert late.outcome.why.startswith("decide_purchase waits no more: it is failed since ")
    assert late.outcome.why.endswith(why)
    assert timelines["late"].state is FAILED
    assert [each.error for each in timelines["late"].entries if each.to_state == "failed"] == [why]
    states = [state for state, _ in await log(running, "late")]
    assert (states[:2], states.count("failed")) == (["gathering", "reminded"], 1)
    assert await running.violations() == []
    results = [await each(running.urls, {("purchase", "late"): FAILED}) for each in CHECKS]
    assert [each.found for each in results] == ["0.00 reserved, 1000010000.00 available", "0 ordered"]


async def is_ignored(running: Running, purchase_id: str) -> bool:
    """Return whether the desk's log has an answer that changed nothing."""
    return ("ignored", "Approved") in await log(running, purchase_id)


@EVERYWHERE
async def test_concurrent_purchases_overspend_no_budget(running: Running):
    # The department's budget is that of two purchases; one that is declined makes room for a later one.
    first, then = [f"first-{number}" for number in range(6)], [f"then-{number}" for number in range(6)]

    async with running.checked() as checks:
        await asyncio.gather(*(running.send(each, purchase(each, "THRIFTY")) for each in (*first, *first)))
        asked = await open_questions(running, 2)
        answers = dict(zip(sorted(asked), (YES, NO), strict=True))
        await asyncio.gather(
            *(play(running.demo.saga, each, [answers[each]], running.people, within=PATIENCE) for each in answers)
        )
        ended = await running.ended(*first)
        await asyncio.gather(*(running.send(each, purchase(each, "THRIFTY")) for each in then))
        (last,) = await open_questions(running, 1)
        await play(running.demo.saga, last, [YES], running.people, within=PATIENCE)
        ended |= await running.ended(*then)

    states = Counter((saga_id.rpartition("-")[0], str(each.state)) for saga_id, each in ended.items())
    assert states == {("first", COMPLETED): 1, ("first", FAILED): 5, ("then", COMPLETED): 1, ("then", FAILED): 5}
    assert await running.violations() == []
    assert checks.runs > 0
    assert [each for each in await checks.results({}) if not each.holds] == []


async def open_questions(running: Running, count: int) -> list[str]:
    """Return the purchases whose questions are open, once there are so many."""
    (desk,) = [each for each in running.clients if each.service == "approvals"]

    async def are_open() -> bool:
        return len(await desk.questions(limit=100)) == count

    await eventually(are_open, within=PATIENCE.total_seconds())
    return [each.saga_id for each in await desk.questions(limit=100)]


@pytest.mark.parametrize("running", ["embedded"], indirect=True)
async def test_an_answered_question_is_a_conflict_over_http(running: Running):
    await running.play(scenario("yes", YES))
    runtime = running.world.runtimes["approvals"]
    context = ApiContext(
        service=runtime.service, contract=Contract.of(runtime.service), database=runtime.database,
        readiness=no_readiness, queue=runtime.queue, clock=SystemClock(),
    )  # fmt: skip
    api = application(api_routes(context, Access("approvals", token=TokenDigest.of(TOKEN))), names=())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://127.0.0.1") as client:
        answer = await client.post(
            "/sagas/yes/answers/Declined",
            json={"fields": {"why": "too dear"}, "actor": "linus", "reason": "too dear"},
            headers={"authorization": f"Bearer {TOKEN}"},
        )

    counted = answer.json()["answer"]
    assert (answer.status_code, counted["decided_with"], counted["decided_by"]) == (409, "Approved", "grace")
    assert datetime.fromisoformat(counted["decided_at"]) <= datetime.now(UTC)


@pytest.mark.parametrize("running", ["embedded"], indirect=True)
async def test_demo_finds_answers_that_went_wrong(running: Running):
    await running.play(scenario("no", NO))

    (second,) = await play(running.demo.saga, "no", [YES], running.people, within=PATIENCE)
    (unasked,) = await play(running.demo.saga, "unknown", [YES], running.people, within=timedelta(seconds=0.3))

    assert (second.outcome.decided_by, second.is_right) == ("linus", False)
    assert (unasked.outcome, unasked.is_right) == (None, False)


async def no_readiness() -> dict[str, bool]:
    return {}


@pytest.mark.parametrize("running", ["embedded"], indirect=True)
async def test_console_shows_the_open_question_and_answers_it(running: Running):
    await running.send("desk-1", purchase("desk-1"))
    assert await open_questions(running, 1) == ["desk-1"]
    form = "/questions/answer?service=approvals&saga=desk-1&type=purchase&event=Declined"

    async with local_console(running.clients) as browser:
        listed = (await browser.get("/questions")).text
        page = (await browser.get(form)).text
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        given = {"field.why": "too dear", "reason": "the budget is short", "name": "Grace"}
        answered = (await browser.post("/questions/answer", data=hidden | given, follow_redirects=True)).text
        left = (await browser.get("/questions")).text

    assert form.replace("&", "&amp;") in listed
    assert "&#34;item&#34;: &#34;LATHE&#34;" in page
    assert "&#34;employee&#34;: &#34;***&#34;" in page
    assert "approvals: decide_purchase has taken Declined" in answered
    assert "No question is open" in left
    assert (await running.ended("desk-1"))["desk-1"].state is FAILED
