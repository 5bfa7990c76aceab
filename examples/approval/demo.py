"""The purchase's demonstration, `saga demo approval`: the approver agrees, declines, forgets, and answers too late."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from examples.approval.accounts import CHECKS
from examples.approval.approvals.app import app as approvals
from examples.approval.events import Approved, Declined, purchase_saga
from examples.approval.finance.app import app as finance
from examples.approval.ordering.app import app as ordering
from toolkit.cli.demonstration import Demo, End, Results, Scenario, run
from toolkit.cli.demonstration_answers import GivenAnswer
from toolkit.client.account_checks import CheckResult
from toolkit.declaration.events import SagaState
from toolkit.protocol.fence import Note

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED

#: Long enough for an answer on a busy machine, and short enough to be watched; the desk itself waits for days.
DEADLINE = timedelta(seconds=10)
#: The pause between two reminders, in place of a day.
REMINDER = timedelta(seconds=3)

YES = GivenAnswer(Approved, by="grace")
NO = GivenAnswer(Declined, by="linus", changes=("why=too dear",))

PURCHASES = (
    Scenario("demo-late", "it is answered too late", End(FAILED, ("finance",)), answers=(replace(YES, is_late=True),)),
    Scenario("demo-forgotten", "no answer comes", End(FAILED, ("finance",))),
    Scenario("demo-approved", "it is approved", End(COMPLETED), answers=(YES,)),
    Scenario("demo-declined", "it is declined", End(FAILED, ("finance",)), answers=(NO,)),
    Scenario("demo-disputed", "two answers contradict", End(COMPLETED), answers=(YES, NO)),
    Scenario("demo-spent", "the budget is spent", End(FAILED), ("department=SPENT",)),
    Scenario("demo-twice", "it is sent twice", End(COMPLETED), sent=2, answers=(YES,)),
)


async def reminders(results: Results) -> list[CheckResult]:
    """Check that each question that was open to its deadline was reminded of."""
    counts = {
        saga_id: sum(entry.to_state == Note.REMINDED for entry in results.timelines[saga_id].entries)
        for saga_id in ("demo-forgotten", "demo-late")
    }
    found = ", ".join(f"{saga_id}: {count}" for saga_id, count in counts.items())
    return [CheckResult("what waits to its deadline is reminded of", all(counts.values()), found)]


DEMO = Demo(
    package="examples.approval",
    directory="demo-approval",
    saga=purchase_saga,
    services=(finance, approvals, ordering),
    scenarios=PURCHASES,
    checks=reminders,
    always=CHECKS,
    settings={"step_timeouts": {"decide_purchase": DEADLINE}, "step_reminders": {"decide_purchase": REMINDER}},
    try_next=(
        "ls",
        "trace demo-forgotten",
        "log approvals --saga demo-late",
        'answer Declined --saga demo-approved --set why=dear --reason "too dear"',
        "verify",
        "graph",
    ),
)


def main() -> int:
    """Run the demonstration; return 0 if every purchase ended as expected and the budgets add up, else 1."""
    return run(DEMO)
