"""The examples' services that the shop's services host: where their tables are, and their checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import wraps

from examples.approval.accounts import CHECKS as PURCHASE_CHECKS
from examples.approval.approvals.steps import decide_purchase
from examples.transfer.accounts import CHECKS as TRANSFER_CHECKS
from examples.travel.accounts import CHECKS as TRIP_CHECKS
from tests.chaos.shop.apps import HOSTED
from tests.end_to_end.placed_orders import PATIENT
from toolkit.client.account_checks import AccountCheck, CheckResult, SagaStates

#: How long a purchase waits for its answer: some answers come later, some outages are longer.
DEADLINE = timedelta(seconds=60)
#: The databases of the outside systems, by the variables that name them.
OUTSIDE = ("PAYMENT_GATEWAY_URL", "CLEARING_HOUSE_URL", "RESERVATIONS_URL")
_HOST_OF = {hosted.name: host for host, several in HOSTED.items() for hosted in several}


def step_timeouts() -> dict[str, str]:
    """Return the setting with which no step refuses for lateness, but the one that waits for an answer."""
    own = json.loads(PATIENT["SAGA_STEP_TIMEOUTS"])
    steps = [step.name for several in HOSTED.values() for hosted in several for step in hosted.steps]
    seconds = f"PT{DEADLINE.total_seconds():.0f}S"
    return {"SAGA_STEP_TIMEOUTS": json.dumps(own | dict.fromkeys(steps, "PT2H") | {decide_purchase.__name__: seconds})}


def _where_hosted(check: AccountCheck) -> AccountCheck:
    """Return the check of an example; it finds each service's tables in the database of the service that hosts it."""

    @wraps(check)
    async def checked(databases: Mapping[str, str], states: SagaStates) -> CheckResult:
        return await check({name: databases[host] for name, host in _HOST_OF.items()}, states)

    return checked


#: The checks of trips, transfers and purchases.
CHECKS = [_where_hosted(check) for check in (*TRIP_CHECKS, *TRANSFER_CHECKS, *PURCHASE_CHECKS)]
